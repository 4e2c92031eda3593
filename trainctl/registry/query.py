"""Questions to the index, each through a connection that cannot write."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from engine.rundir import UNFINISHED
from trainctl.home import Home
from trainctl.registry import ingest, schema
from trainctl.registry.plain import rank
from trainctl.registry.progress import Progress
from trainctl.registry.threats import Threat

T = TypeVar("T")


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
    archived: bool

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


# One value that is a list in JSON, so that SQLite's limit on the number of values does not matter.
AMONG = "IN (SELECT value FROM json_each(?))"
_UNFINISHED = str(UNFINISHED)
COLUMNS = tuple(name for name in RunRow.__dataclass_fields__ if name not in ("metrics", "threats"))
"""What a run says of itself besides its numbers, by name."""
# With the table's name before it SQLite cannot take a missing column for a string.
_COLUMNS = ", ".join(f'runs."{name}"' for name in RunRow.__dataclass_fields__)


def runs(home: Home, ids: Iterable[str] | None = None, *, newest: int = -1) -> list[RunRow]:
    """All runs, those of `ids`, or the `newest` so many, oldest first.

    The index is taken as it is: `ingest.refresh` brings it up to date.
    """
    where, values = ("", ()) if ids is None else (f"WHERE id {AMONG}", (json.dumps(list(ids)),))
    question = f"SELECT {_COLUMNS} FROM runs {where} ORDER BY created DESC, id DESC LIMIT ?"
    rows = _select(home, question, (*values, newest))
    return [_run(row) for row in reversed(rows)]


def unfinished(home: Home) -> list[RunRow]:
    """The runs that wait or are at work, in the order in which the scheduler takes them."""
    question = f"SELECT {_COLUMNS} FROM runs WHERE status IN {_UNFINISHED} ORDER BY ifnull(created, 0), id"
    return [_run(row) for row in _select(home, question)]


def count(home: Home) -> int:
    """How many runs there are."""
    return sum(number for (number,) in _select(home, "SELECT count(*) FROM runs"))


def stamp(home: Home) -> tuple[int, int] | None:
    """Another value after every change of the index; None if there is none, or it must be migrated first.

    It is the number of runs and the largest rowid, which no change leaves as they are (see `ingest`).
    """

    def read(connection: sqlite3.Connection) -> tuple[int, int] | None:
        if connection.execute("PRAGMA user_version").fetchone()[0] != schema.VERSION:
            return None
        return stamp_of(connection)

    return ask(home, read)


def stamp_of(connection: sqlite3.Connection) -> tuple[int, int]:
    """`stamp` within a transaction."""
    count, newest = connection.execute("SELECT count(*), max(rowid) FROM runs").fetchone()
    return count, newest or 0


def watched(home: Home) -> dict[str, str]:
    """What the folders of runs that have not ended looked like when they were read (`ingest.signatures`), by id."""
    question = f"""SELECT id, signature FROM runs JOIN cursors ON run = id
        WHERE archived IN (0, 1) AND runs.status IN {_UNFINISHED}"""
    return dict(_select(home, question))


def among(home: Home, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are runs in the index."""
    return {run for (run,) in _select(home, f"SELECT id FROM runs WHERE id {AMONG}", (json.dumps(list(ids)),))}


def settings(home: Home) -> dict[str, dict[str, Any]]:
    """The recipe of every run with dotted keys, by id."""
    return {run: json.loads(text) for run, text in _select(home, "SELECT id, settings FROM runs")}


def progress(home: Home, ids: Iterable[str]) -> dict[str, Progress]:
    """Where each of the runs of `ids` stands, as far as the index has read its events."""
    rows = _select(home, f"SELECT run, seen FROM cursors WHERE run {AMONG}", (json.dumps(list(ids)),))
    return {run: Progress(**json.loads(seen).get("progress", {})) for run, seen in rows}


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


def _run(row: Sequence[Any]) -> RunRow:
    return RunRow(**_fields(row))


def _fields(row: Sequence[Any]) -> dict[str, Any]:
    """The fields of a RunRow from a row of `_COLUMNS`."""
    fields = dict(zip(RunRow.__dataclass_fields__, row, strict=True))
    fields["metrics"] = json.loads(fields["metrics"])
    fields["threats"] = json.loads(fields["threats"]) if fields["threats"] != "{}" else {}
    fields["tags"] = tuple(json.loads(fields["tags"])) if fields["tags"] != "[]" else ()
    fields["topology"], fields["archived"] = bool(fields["topology"]), bool(fields["archived"])
    return fields


def ask(home: Home, read: Callable[[sqlite3.Connection], T]) -> T | None:
    """What `read` finds in the index, or None if there is none; a damaged one is built again, once.

    Raises MachineError if it cannot be read.
    """
    if not home.index.exists():
        return None
    for attempt in (1, 2):
        try:
            with contextlib.closing(_connect(home)) as connection:
                return read(connection)
        except sqlite3.Error as error:
            if attempt == 2 or not schema.is_damage(error):
                raise schema.unreadable(home, str(error)) from None
            ingest.replace_damaged(home)
    return None


def _select(home: Home, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
    return ask(home, lambda connection: connection.execute(query, values).fetchall()) or []


def hold(home: Home) -> sqlite3.Connection | None:
    """A connection that is kept open for its own sake; None if there is no index that can be read.

    Who closes the last one folds the journal into the file. That takes longer than a question, and would be done for
    each one asked.
    """
    connection = None
    try:
        connection = _connect(home) if home.index.exists() else None
        if connection is not None:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:  # whoever asks something is told
        if connection is not None:
            connection.close()
        return None
    return connection


def _connect(home: Home) -> sqlite3.Connection:
    # WAL wants to write beside the file; where that is not allowed nobody else writes either.
    frozen = "" if os.access(home.path, os.W_OK) else "&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(home.index))}?mode=ro{frozen}", uri=True, timeout=5.0, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = 1")
    return connection
