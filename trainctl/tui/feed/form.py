"""The resolved recipe of a draft field by field: value, where it was set, what it means, and what is wrong with it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

from engine import options
from engine.recipe import SECTIONS
from engine.sections import ARCHES
from trainctl.errors import UsageError
from trainctl.recipes import locate
from trainctl.recipes.layers import Layers, Table, read_layers
from trainctl.recipes.load import settings_of
from trainctl.recipes.plan import check_name, parse_seeds, plan
from trainctl.recipes.problems import Located, Origin, RecipeProblems
from trainctl.recipes.settings import MAX_RUNS, parse_grid, parse_set
from trainctl.registry.labels import check_tag
from trainctl.tui.feed.draft import GRID, JOBS, NAME, SEEDS, SIDE, SIDES, TAGS, Draft

RUNS = "runs"  # the section of what says how many runs there are and where they work
DEVICE = "run.device"
TRIED = 20  # values of a line of the grid that are checked as one types; the last screen checks all
PLANNED = 40  # runs that are planned as one types
CHOOSERS = {"method": ("Method", "name"), "data": ("DataSource", "dataset")}


@dataclass(frozen=True)
class Field:
    """A line of the form. `value` is written as --set takes it; `base` is what the recipe has without the change."""

    key: str
    section: str
    name: str
    value: str
    base: str
    origin: str
    help: str
    choices: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether it is not as the recipe has it."""
        return self.value != self.base


@dataclass(frozen=True)
class Form:
    """A draft as it stands. `problems` are those without a field; `runs` is how many it makes, None while unknown."""

    draft: Draft
    fields: tuple[Field, ...]
    problems: tuple[str, ...]
    runs: int | None

    @property
    def mistakes(self) -> int:
        """How many there are in all."""
        return len(self.problems) + sum(len(field.problems) for field in self.fields)


def form(draft: Draft, gpus: Sequence[str] = ()) -> Form:
    """The form of a draft on a machine with the `gpus`. RecipeProblems if there is no such recipe."""
    base = read_layers(draft.recipe)
    settings, _ = settings_of(draft.settings)
    layers = base.set(settings)
    recipe = list(_recipe_fields(draft, base, layers, gpus))
    device = [replace(field, section=RUNS) for field in recipe if field.key == DEVICE]
    fields = [*_run_fields(draft, layers), *device, *(field for field in recipe if field.key != DEVICE)]
    runs, found = _check(draft)
    at: dict[str, list[str]] = {}
    for key, text in found:
        at.setdefault(_nearest(key, fields), []).append(text)
    shown = tuple(replace(field, problems=tuple(dict.fromkeys(at.get(field.key, ())))) for field in fields)
    return Form(draft, shown, tuple(dict.fromkeys(at.get("", ()))), runs)


def _run_fields(draft: Draft, layers: Layers) -> Iterator[Field]:
    """What the options of `trainctl run` say of the runs."""

    def field(key: str, name: str, value: str, help: str, choices: tuple[str, ...] = ()) -> Field:
        return Field(key, RUNS, name, value, "", "", help, choices)

    yield field(SIDE, "TRAIN", draft.side, "the recipe as it is, the baseline and its twin, or the twin", tuple(SIDES))
    own = layers.table.get("run", {})
    seed = own.get("seed", 1) if isinstance(own, dict) else 1
    yield field(SEEDS, "seeds", draft.option(SEEDS), f"a run for each seed: 3, 0-4 or 0,2,7-9; empty: {seed}")
    for number, line in enumerate((*draft.grid, "")):
        name = "grid" if number == 0 else ""
        yield field(f"{GRID}{number}", name, line, "a run for each value: KEY=V1,V2; several lines: every combination")
    help = "runs that work at a time and share the cores; empty: as many as there are cores or GPUs"
    yield field(JOBS, "jobs at a time", draft.option(JOBS), help)
    yield field(NAME, "name", draft.option(NAME), "how the runs' names begin; empty: the recipe's name")
    yield field(TAGS, "tags", draft.option(TAGS), "words that the runs are found by again, as tag:WORD")


def _recipe_fields(draft: Draft, base: Layers, layers: Layers, gpus: Sequence[str]) -> Iterator[Field]:
    """The keys of the recipe, section by section; a key that the schema does not know stands with the others."""
    typed = dict(draft.changes)
    for section, known in _schema(layers.table, gpus).items():
        given, before = _at(layers.table, section), _at(base.table, section)
        if not isinstance(given, dict):
            yield Field(section, section, "", _text(given), "", _place(layers.origin(section)), "expected a table")
            continue
        before = before if isinstance(before, dict) else {}
        unknown: Known = {key: ("", None, ()) for key in given if key not in known}
        for name, (about, default, choices) in {**known, **unknown}.items():
            key = f"{section}.{name}"
            now = _text(before[name]) if name in before else _text(default) if name in known else ""
            path = tuple(key.split("."))
            origin = _place(base.origins[path]) if path in base.origins else "default" if name in known else ""
            yield Field(key, section, name, typed.get(key, now), now, origin, about, choices)


Known = dict[str, tuple[str, Any, tuple[str, ...]]]
"""Help, default and choices of each key."""


def _schema(table: Table, gpus: Sequence[str]) -> dict[str, Known]:
    """Every section with its keys: those that are fixed and those of the chosen method, data set and terms."""
    found: dict[str, Known] = {}
    for section, model in SECTIONS.items():
        known: Known = {
            name: (field.description or "", field.default, _choices(field.annotation))
            for name, field in model.model_fields.items()
        }
        found[section] = known
        part = table.get(section, {})
        if section in CHOOSERS:
            kind, chooser = CHOOSERS[section]
            about, default, _ = known[chooser]
            entries = options.readable(kind)
            known[chooser] = (about, default, tuple(entries))
            entry = entries.get(str(part.get(chooser, default))) if isinstance(part, dict) else None
            known |= _own(entry) if entry else {}
        elif section == "terms":
            for name, entry in options.readable("Term").items():
                known[name] = (f"{entry.summary} {{}} adds it", "", ("", "{}"))
                if isinstance(part, dict) and name in part:
                    found[f"terms.{name}"] = _own(entry)
        elif section in ("model", "standard"):
            known["arch"] = (*known["arch"][:2], ARCHES)
        elif section == "run":
            known["device"] = (*known["device"][:2], ("auto", "cpu", *(f"cuda:{gpu}" for gpu in gpus)))
    return found


def _own(entry: options.Entry) -> Known:
    return {
        key: (option.help, option.default, tuple(option.bounds.get("choices", ())) or _choices(option.type))
        for key, option in entry.options.items()
    }


def _choices(kind: Any) -> tuple[str, ...]:
    if kind is bool:
        return "false", "true"
    return tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else ()


def _place(origin: Origin) -> str:
    """Where a value was set; a shipped recipe by its folder and name."""
    shipped = locate.display(locate.shipped_folder()) + os.sep
    return str(origin).removeprefix(shipped)


def _at(table: Table, section: str) -> Any:
    value: Any = table
    for part in section.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    return value


def _text(value: Any) -> str:
    """A value as --set takes it: words bare where that means the same."""
    if isinstance(value, str):
        try:
            bare = parse_set(f"a={value}").value
        except RecipeProblems:
            bare = None
        return value if bare == value and "\n" not in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_text(part)}" for key, part in value.items()) + "}"
    return json.dumps(value, default=str) if isinstance(value, (bool, list)) else str(value)


def _check(draft: Draft) -> tuple[int | None, list[tuple[str, str]]]:
    """How many runs a draft makes, and every mistake in it as (key, what to say)."""
    found: list[tuple[str, str]] = []
    seeds, cells = 1, 1

    def refused(key: str, error: UsageError) -> None:
        found.append((key, f"{error} ({error.hint})" if error.hint else str(error)))

    for key, check in ((SEEDS, parse_seeds), (JOBS, parse_jobs), (NAME, check_name)):
        try:
            checked = check(draft.option(key)) if draft.option(key) else None
            seeds = len(checked) if isinstance(checked, list) else seeds
        except UsageError as error:
            refused(key, error)
    for tag in draft.tags:
        try:
            check_tag(tag)
        except UsageError as error:
            refused(TAGS, error)
    for number, line in enumerate(draft.grid):
        try:
            values = parse_grid(line)
        except RecipeProblems as error:
            found += [(f"{GRID}{number}", _said(problem)) for problem in error.problems]
            continue
        cells *= len(values)
        tried = ",".join(value.text for value in values[:TRIED])
        found += _planned(draft, [f"{'.'.join(values[0].key)}={tried}"], f"{GRID}{number}")[1]
    runs = seeds * cells * (2 if draft.side == "pair" else 1)
    if runs > MAX_RUNS:
        found.append(("", f"that makes {runs} runs, more than {MAX_RUNS} (give fewer seeds or grid values)"))
    exact, mistakes = _planned(draft, draft.grid if runs <= PLANNED and not found else (), "")
    found += mistakes
    return (None if found else exact if runs <= PLANNED else runs), found


def _planned(draft: Draft, grid: Sequence[str], line: str) -> tuple[int, list[tuple[str, str]]]:
    """How many runs are made with the lines `grid`, and the mistakes; those in the grid are at the field `line`."""
    usable = draft.option(SEEDS) if not _refuses(draft.option(SEEDS)) else ""
    try:
        made = plan(
            [draft.recipe], overrides=draft.settings, grid=grid, seeds=usable or None, pair=draft.side == "pair",
            train=draft.side == "train",
        )  # fmt: skip
    except RecipeProblems as error:
        return 0, [(line if problem.file.startswith("--grid") else problem.key, _said(problem, draft))
                   for problem in error.problems]  # fmt: skip
    except UsageError as error:
        return 0, [(line, f"{error} ({error.hint})" if error.hint else str(error))]
    return len(made), []


def _refuses(seeds: str) -> bool:
    try:
        parse_seeds(seeds)
    except UsageError:
        return True
    return False


def parse_jobs(text: str) -> int:
    """The number of --jobs; UsageError if it is none above 0."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) > 0):
        raise UsageError(f"{text!r} is not allowed: expected a number of 1 or more", "as in 2")
    return int(text)


def _said(problem: Located, draft: Draft | None = None) -> str:
    place = f"{_place(Origin(problem.file, problem.line))}: " if problem.line else ""
    hint = problem.hint
    section, _, name = problem.key.partition(".")
    chosen = dict(draft.changes).get("method.name") if draft else None
    if draft and chosen and section == "method" and problem.line and problem.message == "unknown key":
        # --set can change a value of the file and not take it away.
        family = draft.recipe.partition("-")[0]
        known = [recipe for recipe in locate.shipped() if recipe.startswith(f"{family}-") and f"-{chosen}" in recipe]
        begin = min(known, key=len, default="a recipe of that method")
        hint = f"{chosen} has no {name}: begin with {begin}"
    return f"{place}{problem.message}" + (f" ({hint})" if hint else "")


def _nearest(key: str, fields: Sequence[Field]) -> str:
    """The field that a mistake is shown at: its own, or the table's that it belongs in; "" for none."""
    keys = [field.key for field in fields]
    while key and key not in keys:
        inside = next((other for other in keys if other.startswith(f"{key}.")), "")
        if inside:
            return inside
        key = key.rpartition(".")[0]
    return key
