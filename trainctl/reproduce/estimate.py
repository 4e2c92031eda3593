"""How long a table will take, by what this home has seen of such runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from trainctl.home import Home
from trainctl.launch import slots
from trainctl.recipes.plan import Planned
from trainctl.registry import price
from trainctl.registry.query import RunRow
from trainctl.reproduce.plan import Key, TablePlan, key

# A run of a digits recipe from start to end on one core of an AMD EPYC (2026-11-22): the mean over Tables 3 and 6.
TINY = 64.0
# The same of a MobileNetV3: ten times an epoch's CPU time, and that of evaluating two checkpoints.
TINY_MOBILENET = 480.0
# Rounds of all settings; see engine/timing.py.
TINY_TIMING = 90.0
ENDED = ("done", "diverged")  # what will not be run again


def seconds(home: Home, plan: TablePlan, have: Mapping[Key, RunRow]) -> float | None:
    """Seconds until every run of `plan` has ended, 0 if all have; None if nothing is known of any of them.

    `have` is what the home has of them, see plan.standing. A run is reckoned with those of its own group, else of the
    same method, architecture and data set, else with the mean of the other runs of the plan.
    """
    missing = [run for run in plan.runs() if (row := have.get(key(run))) is None or row.status not in ENDED]
    if not missing:
        return 0.0
    past = price.past(home)
    each = [_remaining(run, past, have.get(key(run))) for run in missing]
    known = [one for one in each if one is not None]
    if not known and plan.scale != "tiny":
        return None
    usual = statistics.fmean(known) if known else None
    total = [_first(one, usual, _constant(run)) for run, one in zip(missing, each, strict=True)]
    return price.total(total, _places(missing))


def _first(*guesses: float | None) -> float:
    return next(guess for guess in guesses if guess is not None)


def _constant(run: Planned) -> float:
    """Seconds of a run at `tiny` where nothing was run yet."""
    if run.recipe_name == "timing":
        return TINY_TIMING
    return TINY_MOBILENET if run.recipe.model.arch == "mobilenetv3-large" else TINY


def _remaining(run: Planned, past: price.Past, have: RunRow | None) -> float | None:
    if run.recipe_name == "timing":
        return None
    return price.seconds(run, past, have.epoch if have else 0)


def _places(runs: Sequence[Planned]) -> int:
    """How many of `runs` work at a time."""
    available, run = slots.gpus(), runs[0].recipe.run
    return slots.places(slots.asked(run.device, run.threads, run.gpus, None, available), available)
