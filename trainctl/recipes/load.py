"""From a recipe's name to a checked recipe, and from a recipe to the text that holds it whole."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine import recipe as schema
from engine.recipe import InvalidRecipe, Problem, Recipe
from trainctl.errors import UsageError
from trainctl.recipes.layers import Layers, read_layers
from trainctl.recipes.lines import MAX_DEPTH
from trainctl.recipes.problems import Located, Origin, RecipeProblems
from trainctl.recipes.settings import Setting, parse_set

__all__ = ["Located", "Origin", "RecipeProblems", "Resolved", "check_layers", "dump", "resolve", "settings_of"]


MAX_ITEMS = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # and halves of characters, from a command line


@dataclass(frozen=True)
class Resolved:
    """A checked recipe; `provenance` says for each dotted key that was set where, the rest are defaults."""

    recipe: Recipe
    name: str
    files: tuple[str, ...]
    provenance: dict[str, Origin]


def resolve(name_or_path: str, overrides: Sequence[str] = ()) -> Resolved:
    """The recipe called so (or in that file) with the `a.b=v` of `overrides` laid over it, checked.

    Raises RecipeProblems with every mistake in the files, the overrides and the values they give together.
    """
    settings, problems = settings_of(overrides)
    try:
        resolved = check_layers(read_layers(name_or_path).set(settings))
    except RecipeProblems as error:
        raise RecipeProblems([*error.problems, *problems]) from None
    if problems:
        raise RecipeProblems(problems)
    return resolved


def settings_of(overrides: Sequence[str]) -> tuple[list[Setting], list[Located]]:
    """The overrides that can be read, and what is wrong with the others."""
    settings: list[Setting] = []
    problems: list[Located] = []
    for text in overrides:
        try:
            settings.append(parse_set(text))
        except RecipeProblems as error:
            problems += error.problems
    return settings, problems


def check_layers(layers: Layers) -> Resolved:
    """Check what was read; RecipeProblems with all mistakes in order of file and line."""
    found: list[Problem] = []
    table = _sound(layers.table, (), found)
    try:
        recipe = schema.check(table)
    except InvalidRecipe as error:
        unsure = _unsure(table) if layers.problems else ()
        found += [problem for problem in error.problems if problem.key.split(".")[0] not in unsure]
    except (SyntaxError, ValueError, OSError) as error:
        hint = "mend the file, or take its folder out of TRAINCTL_PLUGINS"
        raise UsageError(f"a method, term or data set cannot be read: {error}", hint) from None
    problems = [*layers.problems, *(_located(problem, layers) for problem in found)]
    if problems:
        raise RecipeProblems(sorted(problems, key=_place))
    provenance = {".".join(key): origin for key, origin in layers.origins.items()}
    return Resolved(recipe, layers.name, layers.files, provenance)


def dump(recipe: Recipe) -> str:
    """The whole recipe as TOML: with this text alone the run can be done again."""
    import tomli_w

    return tomli_w.dumps(recipe.model_dump(), multiline_strings=True)


def _sound(table: dict[str, Any], above: tuple[str, ...], found: list[Problem]) -> dict[str, Any]:
    """`table` without values that TOML can write and no setting can mean, each added to `found`."""
    sound: dict[str, Any] = {}
    for key, value in table.items():
        path = (*above, key)
        reason = _unsound(value, 0) if not isinstance(value, dict) else ""
        if reason:
            found.append(Problem(schema.dotted(path), reason))
        else:
            sound[key] = _sound(value, path, found) if isinstance(value, dict) else value
    return sound


def _unsure(table: dict[str, Any]) -> list[str]:
    """The sections whose options depend on a choice that only a base which could not be read may have made."""
    chooser = {"method": "name", "data": "dataset"}
    parts = {section: table.get(section, {}) for section in chooser}
    return [section for section, part in parts.items() if isinstance(part, dict) and chooser[section] not in part]


def _unsound(value: object, depth: int) -> str:
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "the number does not fit in 64 bits"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not allowed: expected a finite number"
    if isinstance(value, str) and _CONTROL.search(value):
        return "the text has control characters in it"
    if isinstance(value, (list, dict)):
        parts = value.values() if isinstance(value, dict) else value
        if len(value) > MAX_ITEMS:
            return f"more than {MAX_ITEMS} values"
        if depth >= MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels"
        return next((reason for part in parts if (reason := _unsound(part, depth + 1))), "")
    return ""


def _located(problem: Problem, layers: Layers) -> Located:
    origin = layers.origin(problem.key)
    return Located(origin.file, origin.line, problem.key, problem.message, problem.hint)


def _place(problem: Located) -> tuple[bool, str, int, int]:
    """Files before options of the command line, then by line."""
    return problem.file.startswith("--"), problem.file, problem.line or 0, problem.column or 0
