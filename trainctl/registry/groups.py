"""One line for several runs: what they have in common, and the spread of their numbers.

Groups are given by the rowids of their runs, a list in JSON, which stands for all that the runs say (see `ingest`).
"""

from __future__ import annotations

import math
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from engine.rundir import STATUSES
from trainctl.registry.plain import rank
from trainctl.registry.query import AMONG, stored
from trainctl.registry.threats import Threat, decisive

Spreads = dict[str, tuple[float, float | None, int]]
"""By metric: mean, standard deviation (n - 1 in its denominator; None for n = 1), n."""


@dataclass(frozen=True)
class GroupLine:
    """Runs of one recipe, of one pair, or that differ in their seed alone."""

    key: str
    label: str
    runs: int
    statuses: tuple[tuple[str, int], ...]
    method: str
    topology: bool
    """True if TRAIN is added in all of them."""
    dataset: str
    model: str
    """"" where the runs differ, as `method` and `dataset`."""
    metrics: Spreads
    """Over the runs that are done; without metrics that were measured under several threat models."""


def describe(connection: sqlite3.Connection, kind: str, key: str, runs: str, metrics: Spreads) -> GroupLine:
    """The line of the group `key` of `kind` "recipe", "pair" or "group"."""
    statuses, common, plain = Counter[str](), tuple(set[str]() for _ in range(3)), False
    question = f"""SELECT status, topology, method, dataset, model, count(*) FROM runs WHERE rowid {AMONG}
        GROUP BY 1, 2, 3, 4, 5"""
    for status, topology, *said, count in connection.execute(question, (runs,)):
        statuses[status] += count
        plain = plain or not topology
        for found, value in zip(common, said, strict=True):
            found.add(value)
    method, dataset, model = (found.pop() if len(found) == 1 else "" for found in common)
    known = tuple((status, statuses[status]) for status in STATUSES if status in statuses)
    label = key if kind == "recipe" else _label(connection, kind, runs)
    return GroupLine(key, label, statuses.total(), known, method, not plain, dataset, model, metrics)


def _label(connection: sqlite3.Connection, kind: str, runs: str) -> str:
    """The newest run's name without its seed; of a pair that of a baseline, if there is one."""
    order = "topology, created DESC, id DESC" if kind == "pair" else "created DESC, id DESC"
    question = f"SELECT name, seed FROM runs WHERE rowid {AMONG} ORDER BY {order} LIMIT 1"
    name, seed = connection.execute(question, (runs,)).fetchone()
    label = str(name).removesuffix(f"-s{seed}")
    return label.replace("+train", "", 1) if kind == "pair" else label


def spreads(connection: sqlite3.Connection, done: str) -> Spreads:
    """Of the numbers of the runs `done`, in the order of the tables."""
    values: dict[str, list[float]] = {}
    models: dict[str, list[Threat | None]] = {}
    read: dict[str, dict[str, Threat]] = {}  # threat models are long, and in most runs the same
    for metrics, text in connection.execute(f"SELECT metrics, threats FROM runs WHERE rowid {AMONG}", (done,)):
        if text not in read:
            read[text] = stored(text)
        for metric, value in stored(metrics).items():
            if value is not None:
                values.setdefault(metric, []).append(value)
                _add(models.setdefault(metric, []), decisive(read[text].get(metric)))
    return {metric: spread(values[metric]) for metric in sorted(values, key=rank) if len(models[metric]) == 1}


def _add(models: list[Threat | None], model: Threat | None) -> None:
    if model not in models:
        models.append(model)


def spread(values: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, sample standard deviation and number of `values`, of which there is at least one."""
    n, mean = len(values), math.fsum(values) / len(values)
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None, n
