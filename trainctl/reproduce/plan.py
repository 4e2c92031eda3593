"""The runs behind a table, and which of them this home has.

A run is known by what it trains and by its seed, whatever table or command asked for it. Which evaluations its recipe
lists does not belong to that, as long as it has those that are wanted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from engine import recipe as schema
from engine.recipe import Recipe
from engine.rundir import UNFINISHED
from trainctl.home import Home
from trainctl.recipes.load import dump, settings_of
from trainctl.recipes.plan import Planned, group_of, parse_seeds, plan
from trainctl.registry import ingest, query
from trainctl.registry.query import RunRow
from trainctl.reproduce.rows import TIMING, Row, rows
from trainctl.reproduce.scales import Experiment, Scale, experiment

Key = tuple[str, int]
# Worth a place in a run's name; at small the first value of each architecture goes without saying.
NAMED = (
    "model.arch", "standard.arch", "method.form", "optim.batch_size", "topology.variant", "topology.weight",
)  # fmt: skip
RESUMED = ("killed", "preempted", "timeout", "lost", "failed", "oom")


@dataclass(frozen=True)
class Line:
    """One row of a table, the recipe and the --set that it means, what they come to, and its runs, one a seed."""

    row: Row
    recipe: str
    overrides: tuple[str, ...]
    resolved: Recipe
    runs: tuple[Planned, ...]


@dataclass(frozen=True)
class TablePlan:
    """A table at one scale, with the user's own `settings`.

    `beside` are files that its run folders hold beside the recipe (Table 4).
    """

    table: int
    scale: Scale
    lines: tuple[Line, ...]
    settings: tuple[str, ...]
    beside: dict[str, str]

    def runs(self) -> list[Planned]:
        """Every run once: the first seed of each row, then the second, so that a part of the work is a whole table."""
        depth = max(len(line.runs) for line in self.lines)
        found = [line.runs[index] for index in range(depth) for line in self.lines if index < len(line.runs)]
        return list({key(run): run for run in found}.values())


def plan_table(table: int, scale: Scale, seeds: str, settings: Sequence[str] = ()) -> TablePlan:
    """Plan one of Tables 1-12. `settings` as --set takes them win over those of the rows.

    Raises UsageError, with all mistakes of recipes and settings of one row at once.
    """
    if table == TIMING:
        return _timing(scale, parse_seeds(seeds)[0], settings)
    lines = []
    for row in rows(table):
        found = _changed(experiment(row, scale), settings)
        runs = tuple(_runs(found, scale, seeds, settings))
        lines.append(Line(row, found.recipe, (*found.overrides, *settings), runs[0].recipe, runs))
    return TablePlan(table, scale, tuple(lines), tuple(settings), {})


def key(run: Planned) -> Key:
    """What makes two runs one."""
    return _trained(run.recipe, run.recipe_name, run.group), run.seed


def standing(home: Home, runs: Iterable[Planned]) -> dict[Key, RunRow]:
    """The run that this home has for each of `runs`, by `key`: one that is done, else at work, else to be resumed, and
    of these the newest. One without an evaluation that is wanted is none of them.
    """
    wanted = {key(run): run for run in runs}
    names = {run.recipe_name for run in wanted.values()}
    ingest.refresh(home)
    chosen: dict[Key, RunRow] = {}
    for row in query.runs(home):  # oldest first
        recipe = _recipe(home, row) if row.recipe in names and row.seed is not None else None
        if recipe is None or row.seed is None:
            continue
        found = _trained(recipe, row.recipe, row.group), row.seed
        if found not in wanted or not _covers(recipe, wanted[found].recipe):
            continue
        before = chosen.get(found)
        if before is None or _rank(row.status) >= _rank(before.status):
            chosen[found] = row
    return chosen


def _rank(status: str) -> int:
    """Which of equal runs counts; one that diverged would diverge again."""
    return 3 if status == "done" else 2 if status in UNFINISHED else 1 if status in RESUMED else 0


def _trained(recipe: Recipe, name: str, group: str) -> str:
    """The group of a run without the list of its evaluations; a measurement of time is known by its own."""
    if name == "timing":
        return group
    level = recipe.eval.model_copy(update={"attacks": [], "topology": False, "checkpoints": []})
    return group_of(recipe.model_copy(update={"eval": level}), name)


def _covers(have: Recipe, want: Recipe) -> bool:
    return (
        set(have.eval.attacks) >= set(want.eval.attacks)
        and have.eval.topology >= want.eval.topology
        and set(have.eval.checkpoints) >= set(want.eval.checkpoints)
    )


def _recipe(home: Home, row: RunRow) -> Recipe | None:
    """The recipe of a run; None if it can no longer be read, for then it is not the run that is asked for."""
    try:
        return schema.check(home.run(row.id).table())
    except (OSError, ValueError):
        return None


def _changed(found: Experiment, settings: Sequence[str]) -> Experiment:
    """The experiment without what `settings` set otherwise."""
    set_here = {".".join(setting.key) for setting in settings_of(settings)[0]}
    return Experiment(found.recipe, {key: value for key, value in found.settings.items() if key not in set_here})


def _runs(found: Experiment, scale: Scale, seeds: str, settings: Sequence[str]) -> list[Planned]:
    shown = [text for text in found.overrides if _is_named(text, scale)]
    others = [text for text in found.overrides if text not in shown]
    name = f"{found.recipe}-small" if scale == "small" else None
    return plan([found.recipe], overrides=[*others, *settings], grid=shown, seeds=seeds, name=name)


def _is_named(text: str, scale: Scale) -> bool:
    return text.partition("=")[0] in NAMED and not (scale == "small" and text == "model.arch=resnet-18")


def _timing(scale: Scale, seed: int, settings: Sequence[str]) -> TablePlan:
    """Table 4: one run that times all rows side by side. Its recipe is the first row's; it trains none of them to the
    end, so its group is its own and it is never taken for a run of theirs.
    """
    experiments = [_changed(experiment(row, scale), settings) for row in rows(TIMING)]
    planned = [_runs(found, scale, str(seed), settings)[0] for found in experiments]
    digest = hashlib.sha256(json.dumps([run.group for run in planned]).encode()).hexdigest()[:8]
    group = f"timing-{digest}"
    run = Planned(planned[0].recipe, f"timing-{scale}-s{seed}", "timing", group, group, seed)
    beside = {f"timed/{index}.toml": dump(one.recipe) for index, one in enumerate(planned)}
    lines = [
        Line(row, found.recipe, (*found.overrides, *settings), one.recipe, (run,))
        for row, found, one in zip(rows(TIMING), experiments, planned, strict=True)
    ]
    return TablePlan(TIMING, scale, tuple(lines), tuple(settings), beside)
