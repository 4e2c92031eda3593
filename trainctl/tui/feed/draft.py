"""What a person has asked for so far: a recipe and what is changed in it, as the options of `trainctl run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from trainctl.home import Home, find_home
from trainctl.recipes.problems import RecipeProblems
from trainctl.recipes.settings import parse_set

SIDES = {"": "as the recipe says", "pair": "baseline and +TRAIN twin", "train": "only +TRAIN"}
SIDE, SEEDS, JOBS, NAME, TAGS, GRID = "--pair", "--seeds", "--jobs", "--name", "--tag", "--grid"
"""Keys of the fields that are no keys of the recipe; those of the grid's lines have a number behind."""


@dataclass(frozen=True)
class Draft:
    """Every value as it was typed; "" is what the command line does without the option."""

    recipe: str
    changes: tuple[tuple[str, str], ...] = ()
    """Key and text of each value that differs from the recipe."""
    side: str = ""
    """Of SIDES."""
    grid: tuple[str, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    """Option and text: SEEDS, JOBS, NAME, TAGS."""

    @property
    def settings(self) -> list[str]:
        """The `a.b=v` of --set."""
        return [f"{key}={text}" for key, text in self.changes]

    @property
    def tags(self) -> list[str]:
        """Tags, as they stand between spaces."""
        return self.option(TAGS).split()

    def option(self, key: str) -> str:
        """What was typed for an option."""
        return dict(self.options).get(key, "")

    def typed(self, key: str, text: str, before: str = "") -> Draft:
        """The same with a value; `before` is what the recipe has there, and no change."""
        text = text.strip()
        if key == SIDE:
            return replace(self, side=text)
        if key.startswith(GRID):
            lines = dict(enumerate(self.grid)) | {int(key.removeprefix(GRID)): text}
            return replace(self, grid=tuple(line for line in lines.values() if line))
        if key.startswith("--"):
            return replace(self, options=_with(self.options, key, text if text else None))
        return replace(self, changes=_with(self.changes, key, None if same(key, text, before) else text))

    def command(self, home: Home) -> list[str]:
        """The words of the `trainctl run` that does the same, wherever it is typed in this folder."""
        words = ["trainctl", "run", self.recipe]
        words += [f"--{self.side}"] if self.side else []
        for key in (SEEDS, JOBS, NAME):
            words += [key, self.option(key)] if self.option(key) else []
        words += _each("--set", self.settings) + _each(GRID, self.grid) + _each(TAGS, self.tags)
        words += ["--home", str(home.path)] if find_home().path != home.path else []
        return [*words, "-d"]

    def line(self, home: Home) -> str:
        """The command as it is typed into a shell."""
        return shlex.join(self.command(home))


def same(key: str, text: str, other: str) -> bool:
    """Whether two texts mean the same value for --set."""
    if text == other:
        return True
    try:
        one, two = parse_set(f"{key}={text}").value, parse_set(f"{key}={other}").value
    except RecipeProblems:
        return False
    return type(one) is type(two) and bool(one == two)


def _with(pairs: tuple[tuple[str, str], ...], key: str, text: str | None) -> tuple[tuple[str, str], ...]:
    """`pairs` with `key` set to `text` where it stands, else at the end; None takes it away."""
    changed = dict(pairs)
    if text is None:
        changed.pop(key, None)
    else:
        changed[key] = text
    return tuple(changed.items())


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]
