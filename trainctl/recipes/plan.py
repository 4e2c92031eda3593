"""Which runs a command asks for: recipes × grid × seeds × the two sides of a pair.

`group` names everything about a run but its seed: runs of one group are repetitions of one experiment. `pair`
is the group of the run's baseline, so a baseline and its +TRAIN twins share it, also when they were launched on
different days.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from engine.recipe import SECTIONS, Recipe, needs_standard
from trainctl.errors import UsageError
from trainctl.recipes.layers import Layers, read_layers
from trainctl.recipes.load import Located, RecipeProblems, Resolved, check_layers, settings_of
from trainctl.recipes.problems import shown
from trainctl.recipes.settings import MAX_RUNS, Setting, grid_cells, parse_grid

MAX_NAME = 120
SEED = ("run", "seed")
# How a run is carried out and where its data lie, not what it is.
EXECUTION = {
    "run": (
        "seed", "device", "threads", "log_every", "gpus", "max_hours", "retries", "shrink_on_oom", "micro_batch",
        "fold",
    ),
    "data": ("root", "verify", "download"),
    "standard": ("torch_weights",),
}  # fmt: skip
_SEEDS = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


@dataclass(frozen=True)
class Planned:
    """One run to be made. `overrides` are the `a.b=v` of --set and --grid that it carries."""

    recipe: Recipe
    name: str
    recipe_name: str
    group: str
    pair: str
    seed: int
    overrides: tuple[str, ...] = ()


def plan(
    recipes: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    grid: Sequence[str] = (),
    seeds: str | None = None,
    pair: bool = False,
    train: bool = False,
    name: str | None = None,
) -> list[Planned]:
    """Every run that is asked for, in the order in which they should start; identical ones once.

    `overrides` and `grid` as given to --set and --grid, `seeds` as "0-4,7" (None: the recipe's own). Raises
    UsageError, and as its kind RecipeProblems with all mistakes of all recipes and options at once.
    """
    if pair and train:
        raise UsageError("--pair and --train exclude each other", "--pair runs both sides, --train only +TRAIN")
    if not recipes:
        raise UsageError("no recipe is named", "`trainctl recipes` lists them")
    chosen = parse_seeds(seeds) if seeds is not None else None
    settings, problems = settings_of(overrides)
    cells = _cells(grid, problems)
    for option, chose in (("--grid", chain.from_iterable(cells)), ("--set", settings)):
        if chosen and any(setting.key == SEED for setting in chose):
            raise UsageError(f"--seeds and {option} run.seed=… exclude each other", "--seeds alone does it")
    sides = _sides(pair, train)
    total = len(recipes) * len(cells) * len(sides) * len(chosen or [0])
    if total > MAX_RUNS:
        raise UsageError(f"that makes {total} runs, more than {MAX_RUNS}", "give fewer seeds or grid values")

    planned: dict[str, Planned] = {}
    for asked in recipes:
        for cell, resolved in _resolve(asked, settings, cells, sides, problems):
            prefix = resolved[0].name if name is None else name if len(recipes) == 1 else f"{name}-{resolved[0].name}"
            given = tuple(map(str, (*settings, *cell)))
            for seed in chosen or [resolved[0].recipe.run.seed]:
                for side in resolved:
                    run = _planned(side, seed, prefix, cell, given)
                    planned.setdefault(_identity(run.recipe), run)
    if problems:
        raise RecipeProblems(problems)
    for run in planned.values():
        check_name(run.name)
    return list(planned.values())


def _planned(side: Resolved, seed: int, prefix: str, cell: Sequence[Setting], given: tuple[str, ...]) -> Planned:
    recipe = with_seed(side.recipe, seed)
    group, pair = group_of(recipe, side.name), pair_of(recipe, side.name)
    return Planned(recipe, _name(recipe, prefix, cell), side.name, group, pair, seed, given)


def parse_seeds(text: str) -> list[int]:
    """`3`, `0-4`, `0,2,5` or a mixture, each seed once, in the order given. UsageError for anything else."""
    seeds: dict[int, None] = {}
    label, total = shown(f"--seeds {text}"), 0
    for part in text.split(","):
        match = _SEEDS.fullmatch(part.strip())
        if match is None:
            raise UsageError(f"{label}: {shown(part.strip())!r} is neither a seed nor a range", "as in --seeds 0-4,7")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UsageError(f"{label}: the range {part.strip()} runs backwards", f"did you mean {last}-{first}?")
        total += last - first + 1  # the same seed may be meant again and again
        if last - first >= MAX_RUNS or total > 10 * MAX_RUNS:
            raise UsageError(f"{label}: more than {MAX_RUNS} seeds", "give a shorter range")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """The same recipe under another seed."""
    return recipe.model_copy(update={"run": recipe.run.model_copy(update={"seed": seed})})


def group_of(recipe: Recipe, recipe_name: str) -> str:
    """`NAME-HASH` or `NAME+train-HASH`: the experiment that this run repeats under its seed."""
    table = _essence(recipe)
    for section, keys in EXECUTION.items():
        for key in keys:
            table.get(section, {}).pop(key, None)
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    mark = "+train" if recipe.topology.enabled else ""
    return f"{recipe_name}{mark}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def pair_of(recipe: Recipe, recipe_name: str) -> str:
    """The group of the baseline that belongs to this run."""
    off = recipe.topology.model_copy(update={"enabled": False})
    return group_of(recipe.model_copy(update={"topology": off}), recipe_name)


def check_name(name: str, what: str = "run", hint: str = "choose another with --name") -> None:
    """UsageError if `name` cannot be the name of a run, or of `what`."""
    if len(name) > MAX_NAME:
        raise UsageError(f"the {what}'s name is {len(name)} characters long, more than {MAX_NAME}: {name[:60]}…", hint)
    if not name or not name.isprintable() or "/" in name or name != name.strip() or name.startswith(("@", "-")):
        raise UsageError(
            f"{name!r} cannot be the name of a {what}: printable characters, no slash, no @ or - in front", hint
        )


def _cells(grid: Sequence[str], problems: list[Located]) -> list[tuple[Setting, ...]]:
    grids: list[list[Setting]] = []
    for text in grid:
        try:
            grids.append(parse_grid(text))
        except RecipeProblems as error:
            problems += error.problems
    return grid_cells(grids)


def _sides(pair: bool, train: bool) -> list[tuple[Setting, ...]]:
    """What each side of a pair sets; one side that sets nothing for a plain run."""

    def switch(on: bool) -> tuple[Setting, ...]:
        return (Setting(("topology", "enabled"), on, "--pair" if pair else "--train", str(on).lower()),)

    if pair:
        return [switch(False), switch(True)]
    return [switch(True)] if train else [()]


def _resolve(
    asked: str,
    settings: Sequence[Setting],
    cells: Sequence[tuple[Setting, ...]],
    sides: Sequence[tuple[Setting, ...]],
    problems: list[Located],
) -> list[tuple[tuple[Setting, ...], list[Resolved]]]:
    """Each cell of the grid with its sides, checked; mistakes go to `problems`."""
    try:
        layers = read_layers(asked)
    except RecipeProblems as error:
        problems += [problem for problem in error.problems if problem not in problems]
        return []
    found = []
    for cell in cells:
        given = layers.set([*settings, *cell])
        resolved = [side for switches in sides if (side := _checked(given, switches, problems))]
        if len(resolved) == len(sides):
            found.append((cell, resolved))
    return found


def _checked(layers: Layers, switches: Sequence[Setting], problems: list[Located]) -> Resolved | None:
    topology = layers.table.get("topology", {})
    mistaken = not isinstance(topology, dict) or not isinstance(topology.get("enabled", False), bool)
    try:
        # A mistake that --pair would overrule is one all the same.
        return check_layers(layers if mistaken else layers.set(switches))
    except RecipeProblems as error:
        problems += [problem for problem in error.problems if problem not in problems]
        return None


def _essence(recipe: Recipe) -> dict[str, Any]:
    """What has an effect on the run: no words, and no settings of a network or loss that is not there."""
    table = recipe.model_dump(include=set(SECTIONS))
    if not recipe.topology.enabled:
        table["topology"] = {"enabled": False}
    if not needs_standard(recipe):
        del table["standard"]
    return table


def _identity(recipe: Recipe) -> str:
    return json.dumps(_essence(recipe), sort_keys=True)


def _name(recipe: Recipe, prefix: str, cell: Sequence[Setting]) -> str:
    """`PREFIX[+train][ key=value…]-sSEED`; a baseline does not name grid values that only its twins have."""
    essence = _essence(recipe)
    idle = set() if recipe.topology.enabled else {"topology"}
    named = [f" {setting}" for setting in cell if setting.key[0] in essence.keys() - idle and setting.key != SEED]
    values = "".join(named).replace("/", "_")  # attack.eps=8/255
    return f"{prefix}{'+train' if recipe.topology.enabled else ''}{values}-s{recipe.run.seed}"
