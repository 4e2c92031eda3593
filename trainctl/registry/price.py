"""What runs have cost on this machine, and so what another one will."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainctl.home import Home
from trainctl.registry import query

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned

NEWEST = 300  # done runs that are looked at; the older ones say less of this machine as it is now
_DONE = """WITH done AS (
    SELECT id, "group", method, model, dataset, seconds_per_epoch FROM runs WHERE status = 'done'
    ORDER BY created DESC, id DESC LIMIT ?)"""
_RUNS = f"{_DONE} SELECT * FROM done"
_TIMES = f"""{_DONE} SELECT run, t FROM done JOIN points ON run = done.id
    WHERE kind = 'epoch' AND metric = 'seconds' AND t IS NOT NULL ORDER BY run, step"""
_EVALUATIONS = f"""{_DONE} SELECT run, json_extract(settings, '$.seconds') FROM done JOIN evals ON run = done.id
    WHERE json_type(settings, '$.seconds') IN ('integer', 'real')"""


@dataclass(frozen=True)
class Cost:
    """Mean seconds of an epoch with the look for `best` after it, and of all evaluations, over `runs` runs.

    Where one evaluation stood for both checkpoints it counts twice: another run may have two to evaluate.
    """

    epoch: float
    evaluation: float
    runs: int


Past = Mapping[tuple[str, ...], Cost]
"""By (group,) and by (method, architecture, data set)."""


def past(home: Home) -> Past:
    """What the newest runs that are done have cost. The index is taken as it is."""
    times, evaluations = _lists(home, _TIMES), _lists(home, _EVALUATIONS)
    found: dict[tuple[str, ...], list[Cost]] = {}
    for run, group, method, model, dataset, reported in query.rows(home, _RUNS, (NEWEST,)):
        between = [after - before for before, after in itertools.pairwise(times.get(run, ()))]
        # The median leaves out the time for which a run was stopped.
        epoch = statistics.median(between) if between else reported
        if epoch is not None:
            cost = Cost(epoch, sum(evaluations.get(run, ())), 1)
            for name in ((group,), (method, model, dataset)):
                found.setdefault(name, []).append(cost)
    return {name: _mean(costs) for name, costs in found.items()}


def cost(run: Planned, known: Past) -> Cost | None:
    """The cost of the runs of its own group, else of the same method, architecture and data set; None without any."""
    recipe = run.recipe
    return known.get((run.group,)) or known.get((recipe.method.name, recipe.model.arch, recipe.data.dataset))


def seconds(run: Planned, known: Past, trained: int = 0) -> float | None:
    """Seconds of a run from after its epoch `trained` to its end; None if there was none like it."""
    found = cost(run, known)
    if found is None:
        return None
    return max(0, run.recipe.schedule.epochs - trained) * found.epoch + found.evaluation


def total(each: Sequence[float], places: int) -> float:
    """Seconds until runs of the lengths `each`, in seconds, have ended, `places` of them working at a time."""
    return max(max(each), sum(each) / places) if each else 0.0


def _lists(home: Home, question: str) -> dict[str, list[float]]:
    """The numbers of each run, in the order of the answer."""
    found: dict[str, list[float]] = {}
    for run, number in query.rows(home, question, (NEWEST,)):
        found.setdefault(run, []).append(number)
    return found


def _mean(costs: Sequence[Cost]) -> Cost:
    epoch, evaluation = statistics.fmean(c.epoch for c in costs), statistics.fmean(c.evaluation for c in costs)
    return Cost(epoch, evaluation, len(costs))
