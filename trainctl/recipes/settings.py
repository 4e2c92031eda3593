"""What the command line sets in a recipe: `--set a.b=v` and `--grid a.b=1,2,3`.

A value is TOML; where it is none, it is taken for a bare string, so that `--set model.arch=wrn-28-10` needs no
quotes within quotes. Text that opens a bracket or a quote was meant as TOML, and is a mistake if it is none.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tomli

from trainctl.errors import UsageError
from trainctl.recipes.lines import MAX_DEPTH, Key
from trainctl.recipes.problems import Located, RecipeProblems, shown

MAX_RUNS = MAX_TEXT = 10_000  # more runs, or characters of a value, are a slip of the keyboard
_KEY = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PIECE = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|[\s\S]')


@dataclass(frozen=True)
class Setting:
    """One value for one key; `label` is the option that says so, `text` the value as it was typed."""

    key: Key
    value: Any
    label: str
    text: str = ""

    def __str__(self) -> str:
        return f"{'.'.join(self.key)}={self.text}"


def parse_set(text: str) -> Setting:
    """`a.b=v` as given to --set; RecipeProblems if it is not of that form."""
    label = shown(f"--set {text}")
    key, value = _split(text, label)
    return Setting(key, _value(value, key, label), label, value)


def parse_grid(text: str) -> list[Setting]:
    """`a.b=1,2,3` as given to --grid, one setting a value; RecipeProblems if it is not of that form."""
    label = shown(f"--grid {text}")
    key, values = _split(text, label)
    pieces = list(dict.fromkeys(piece.strip() for piece in split_values(values)))
    if "" in pieces:
        raise RecipeProblems([Located(label, None, ".".join(key), "a value is empty", "--grid a.b=1,2,3")])
    return [Setting(key, _value(piece, key, label), label, piece) for piece in pieces]


def split_values(text: str) -> list[str]:
    """Split at the commas that stand in no quotes and no brackets."""
    pieces, depth = [""], 0
    for match in _PIECE.finditer(text):
        piece = match.group()
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        if piece == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += piece
    return pieces


def grid_cells(grids: Sequence[list[Setting]]) -> list[tuple[Setting, ...]]:
    """Every combination of the grids' values, the last one varying fastest; one empty cell for no grid."""
    keys = [grid[0].key for grid in grids]
    for key in keys:
        if keys.count(key) > 1:
            raise UsageError(f"--grid names {'.'.join(key)} twice", "give all its values at once: --grid a.b=1,2,3")
    if math.prod(map(len, grids)) > MAX_RUNS:
        raise UsageError(f"the grid has more than {MAX_RUNS} cells", "give fewer values")
    return list(itertools.product(*grids))


def _split(text: str, label: str) -> tuple[Key, str]:
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not _KEY.fullmatch(key):
        option = label.split(" ", 1)[0]
        values = "1,2,3" if option == "--grid" else "v"
        raise RecipeProblems([Located(label, None, "", "expected KEY=VALUE", f"as in {option} a.b={values}")])
    parts = tuple(key.split("."))
    if len(parts) > MAX_DEPTH:
        raise RecipeProblems([Located(label, None, "", f"a key of more than {MAX_DEPTH} parts")])
    return parts, value.strip()


def _value(text: str, key: Key, label: str) -> Any:
    if len(text) > MAX_TEXT:
        message = f"a value of more than {MAX_TEXT} characters"
        raise RecipeProblems([Located(label, None, ".".join(key), message, "write a recipe")])
    try:
        table = tomli.loads(f"value = {text}")
        if list(table) == ["value"]:
            if _deeper(table, MAX_DEPTH):
                raise RecursionError
            return table["value"]
    except (ValueError, RecursionError) as error:
        if text.startswith(("[", "{", '"', "'")):
            reason = str(error).split(" (at ")[0] if isinstance(error, ValueError) else "nested too deeply"
            hint = "quote the whole for the shell: --set 'a.b=[1, 2]'"
            raise RecipeProblems([Located(label, None, ".".join(key), f"not a TOML value: {reason}", hint)]) from None
        if text.lstrip("+-").isdigit():
            message = f"a number of {len(text)} digits does not fit in 64 bits"
            raise RecipeProblems([Located(label, None, ".".join(key), message, "give a smaller one")]) from None
    return text


def _deeper(value: object, levels: int) -> bool:
    """True if there are more than `levels` tables one inside the other."""
    return isinstance(value, dict) and (not levels or any(_deeper(part, levels - 1) for part in value.values()))
