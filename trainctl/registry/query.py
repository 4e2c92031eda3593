"""Questions to the index, each through a connection that cannot write."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from trainctl.home import Home
from trainctl.registry import ingest, schema
from trainctl.registry.plain import rank
from trainctl.registry.threats import Threat


@dataclass(frozen=True)
class RunRow:
    """One run as `ls --json` shows it. Times are unix seconds, accuracies percent; None is unknown or not yet."""

    id: str
    name: str
    recipe: str
    method: str
    topology: bool
    dataset: str
    model: str
    seed: int | None
    group: str
    pair: str
    status: str
    epoch: int
    epochs: int | None
    created: float | None
    started: float | None
    finished: float | None
    metrics: dict[str, float | None]
    tags: tuple[str, ...]
    note: str
    title: str
    our_reading: str
    """What its methods' authors leave open and is our choice; "" for most runs."""
    device: str
    seconds_per_epoch: float | None
    threats: dict[str, Threat]
    """What each metric was measured under (`threats.KEYS`); empty for numbers of an epoch."""

    def json(self) -> dict[str, Any]:
        """The object of `ls --json`; JSON has no infinity, so it becomes null as NaN does."""
        return {**_finite(vars(self)), "metrics": _finite(self.metrics), "tags": list(self.tags)}


@dataclass(frozen=True)
class Point:
    """One value of a curve; None is NaN."""

    step: int
    epoch: int | None
    t: float | None
    value: float | None


@dataclass(frozen=True)
class Evaluation:
    """One number about one checkpoint, with the settings (threat model) that it was measured under."""

    run: str
    checkpoint: str
    metric: str
    value: float | None
    n: int | None
    settings: dict[str, Any]


# With the table's name before it SQLite cannot take a missing column for a string.
_COLUMNS = ", ".join(f'runs."{name}"' for name in RunRow.__dataclass_fields__)


def runs(home: Home, ids: Iterable[str] | None = None, *, newest: int = -1) -> list[RunRow]:
    """All runs, those of `ids`, or the `newest` so many, oldest first.

    The index is taken as it is: `ingest.refresh` brings it up to date.
    """
    rows = _select(home, f"SELECT {_COLUMNS} FROM runs ORDER BY created DESC, id DESC LIMIT ?", (newest,))
    wanted = None if ids is None else set(ids)
    return [_run(row) for row in reversed(rows) if wanted is None or row[0] in wanted]


def count(home: Home) -> int:
    """How many runs there are."""
    return sum(number for (number,) in _select(home, "SELECT count(*) FROM runs"))


def settings(home: Home) -> dict[str, dict[str, Any]]:
    """The recipe of every run with dotted keys, by id."""
    return {run: json.loads(text) for run, text in _select(home, "SELECT id, settings FROM runs")}


def points(home: Home, run: str, metric: str, kind: str = "epoch") -> list[Point]:
    """A curve from the events of `kind`, in the order of steps.

    `kind` is "epoch" or "step"; with "pretrain-" before it, of the stage that trains M alone.
    """
    query = "SELECT step, epoch, t, value FROM points WHERE run = ? AND kind = ? AND metric = ? ORDER BY step"
    return [Point(*row) for row in _select(home, query, (run, kind, metric))]


def metrics(home: Home, run: str, kind: str = "epoch") -> list[str]:
    """Names of the curves of a run, sorted."""
    query = "SELECT DISTINCT metric FROM points WHERE run = ? AND kind = ? ORDER BY metric"
    return [name for (name,) in _select(home, query, (run, kind))]


def evals(home: Home, run: str) -> list[Evaluation]:
    """Every evaluation of a run, by checkpoint and metric."""
    query = "SELECT run, checkpoint, metric, value, n, settings FROM evals WHERE run = ?"
    rows = sorted(_select(home, query, (run,)), key=lambda row: (row[1], rank(row[2])))
    return [Evaluation(id, point, metric, value, n, json.loads(text)) for id, point, metric, value, n, text in rows]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in values.items()}


def _run(row: tuple[Any, ...]) -> RunRow:
    fields = dict(zip(RunRow.__dataclass_fields__, row, strict=True))
    fields["metrics"] = json.loads(fields["metrics"])
    fields["threats"] = json.loads(fields["threats"])
    fields["tags"] = tuple(json.loads(fields["tags"])) if fields["tags"] != "[]" else ()
    fields["topology"] = bool(fields["topology"])
    return RunRow(**fields)


def _select(home: Home, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    """Rows of a query; a damaged index is built again, once. Raises MachineError if it cannot be read."""
    if not home.index.exists():
        return []
    for attempt in (1, 2):
        try:
            with contextlib.closing(_connect(home)) as connection:
                return connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if attempt == 2 or not schema.is_damage(error):
                raise schema.unreadable(home, str(error)) from None
            ingest.replace_damaged(home)
    return []


def _connect(home: Home) -> sqlite3.Connection:
    # WAL wants to write beside the file; where that is not allowed nobody else writes either.
    frozen = "" if os.access(home.path, os.W_OK) else "&immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(home.index))}?mode=ro{frozen}", uri=True, timeout=5.0)
    connection.execute("PRAGMA query_only = 1")
    return connection
