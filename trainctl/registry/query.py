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
FIELDS = ", ".join(f'runs."{name}"' for name in RunRow.__dataclass_fields__)
"""The columns that `row` makes a RunRow of."""


def runs(home: Home, ids: Iterable[str] | None = None, *, newest: int = -1) -> list[RunRow]:
    """All runs, those of `ids`, or the `newest` so many, oldest first.

    The index is taken as it is: `ingest.refresh` brings it up to date.
    """
    where, values = ("", ()) if ids is None else (f"WHERE id {AMONG}", (json.dumps(list(ids)),))
    question = f"SELECT {FIELDS} FROM runs {where} ORDER BY created DESC, id DESC LIMIT ?"
    return made(home, row, question, (*values, newest))[::-1]


def unfinished(home: Home) -> list[RunRow]:
    """The runs that wait or are at work, in the order in which they were made."""
    question = f"SELECT {FIELDS} FROM runs WHERE status IN {_UNFINISHED} ORDER BY ifnull(created, 0), id"
    return made(home, row, question)


def twin(home: Home, run: RunRow) -> RunRow | None:
    """The newest run of the same pair and seed with TRAIN if `run` has it not, or without; None if there is none."""
    question = f"""SELECT {FIELDS} FROM runs WHERE pair = ? AND pair != '' AND seed IS ? AND topology = ?
        ORDER BY created DESC, id DESC LIMIT 1"""
    return next(iter(made(home, row, question, (run.pair, run.seed, not run.topology))), None)


def count(home: Home) -> int:
    """How many runs there are."""
    return sum(number for (number,) in rows(home, "SELECT count(*) FROM runs"))


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
    return {run: stored.partition("|")[0] for run, stored in rows(home, question)}


def among(home: Home, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are runs in the index."""
    return {run for (run,) in rows(home, f"SELECT id FROM runs WHERE id {AMONG}", (json.dumps(list(ids)),))}


def settings(home: Home) -> dict[str, dict[str, Any]]:
    """The recipe of every run with dotted keys, by id."""
    return dict(made(home, lambda found: (found[0], stored(found[1])), "SELECT id, settings FROM runs"))


def progress(home: Home, ids: Iterable[str]) -> dict[str, Progress]:
    """Where each of the runs of `ids` stands, as far as the index has read its events."""
    question = f"SELECT run, seen FROM cursors WHERE run {AMONG}"
    seen = made(home, lambda found: (found[0], stored(found[1])), question, (json.dumps(list(ids)),))
    return {run: Progress(**said.get("progress", {})) for run, said in seen}


def points(home: Home, run: str, metric: str, kind: str = "epoch") -> list[Point]:
    """A curve from the events of `kind`, in the order of steps.

    `kind` is "epoch" or "step"; with "pretrain-" before it, of the stage that trains M alone.
    """
    query = "SELECT step, epoch, t, value FROM points WHERE run = ? AND kind = ? AND metric = ? ORDER BY step"
    return [Point(*row) for row in rows(home, query, (run, kind, metric))]


def metrics(home: Home, run: str) -> dict[str, list[str]]:
    """Names of the curves of a run by the kind of their points, sorted.

    Costs one look a metric, however many points there are.
    """
    next_kind = "SELECT min(kind) FROM points WHERE run = ? AND kind > ?"
    next_metric = "SELECT min(metric) FROM points WHERE run = ? AND kind = ? AND metric > ?"

    def read(connection: sqlite3.Connection) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        kind = ""
        while kind := connection.execute(next_kind, (run, kind)).fetchone()[0] or "":
            metric, found[kind] = "", []
            while metric := connection.execute(next_metric, (run, kind, metric)).fetchone()[0] or "":
                found[kind].append(metric)
        return found

    return ask(home, read) or {}


def evals(home: Home, run: str) -> list[Evaluation]:
    """Every evaluation of a run, by checkpoint and metric."""
    question = "SELECT run, checkpoint, metric, value, n, settings FROM evals WHERE run = ?"
    found = made(home, evaluation, question, (run,))
    return sorted(found, key=lambda one: (one.checkpoint, rank(one.metric)))


def evaluation(values: Sequence[Any]) -> Evaluation:
    """An evaluation from a row of run, checkpoint, metric, value, n, settings."""
    run, checkpoint, metric, value, n, settings = values
    return Evaluation(run, checkpoint, metric, value, n, stored(settings))


def damage(home: Home, run: str | None = None) -> list[tuple[str, int, int]]:
    """Runs, or `run` alone, whose events.jsonl has lines that are no events: id, how many, and the first one's offset
    in bytes.
    """
    question = (
        """SELECT run, seen FROM cursors WHERE run = ifnull(?, run) AND instr(seen, '"damaged": ') ORDER BY run"""
    )
    found = made(home, lambda values: (values[0], stored(values[1]).get("damaged")), question, (run,))
    return [(name, *damaged) for name, damaged in found if damaged]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isinf(value) else value for name, value in values.items()}


def row(values: Sequence[Any]) -> RunRow:
    """A run from a row of `FIELDS`."""
    return RunRow(**fields(values))


def fields(values: Sequence[Any]) -> dict[str, Any]:
    """The fields of a RunRow from a row of `FIELDS`."""
    found = dict(zip(RunRow.__dataclass_fields__, values, strict=True))
    found["metrics"] = stored(found["metrics"])
    found["threats"] = stored(found["threats"]) if found["threats"] != "{}" else {}
    found["tags"] = tuple(stored(found["tags"])) if found["tags"] != "[]" else ()
    found["topology"], found["archived"] = bool(found["topology"]), bool(found["archived"])
    return found


def stored(text: Any) -> Any:
    """What the JSON of a column says; Garbled, which `ask` mends, if it is none."""
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise schema.Garbled("a value that is no JSON") from None


def ask(home: Home, read: Callable[[sqlite3.Connection], T]) -> T | None:
    """What `read` finds in the index, or None if there is none; a damaged one is built again, once.

    Raises MachineError if it cannot be read.
    """
    if not os.path.lexists(home.index):
        return None
    try:
        return _answer(home, read, connect)
    except sqlite3.Error as error:
        if not os.access(home.index.parent, os.W_OK):
            raise schema.unreadable(home, str(error)) from None
    # Whoever writes the index may be giving it another form, and be done by the time that it is our turn.
    with schema.writing(home, ingest.WAIT) as alone:
        for way in (_connect_mending, _connect_alone) if alone else (connect,):
            try:
                return _answer(home, read, way)
            except sqlite3.Error as error:
                reason, damaged = str(error), schema.is_damage(error)
            if damaged:
                break
        if not alone or not damaged:
            raise schema.unreadable(home, reason)
        ingest.build_again(home)
    try:
        return _answer(home, read, connect)
    except sqlite3.Error as error:
        raise schema.unreadable(home, str(error)) from None


def _answer(home: Home, read: Callable[[sqlite3.Connection], T], way: Callable[[Home], sqlite3.Connection]) -> T:
    with contextlib.closing(way(home)) as connection:
        return read(connection)


def rows(home: Home, question: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """The rows of the answer; [] if there is no index."""
    return made(home, tuple, question, values)


def made(home: Home, make: Callable[[Any], T], question: str, values: Sequence[object] = ()) -> list[T]:
    """What `make` makes of each row of the answer; it may raise Garbled."""
    return ask(home, lambda connection: [make(found) for found in connection.execute(question, values)]) or []


def hold(home: Home) -> sqlite3.Connection | None:
    """A connection that is kept open for its own sake; None if there is no index that can be read.

    Who closes the last one folds the journal into the file. That takes longer than a question, and would be done for
    each one asked.
    """
    connection = None
    try:
        connection = connect(home) if home.index.exists() else None
        if connection is not None:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.Error:  # whoever asks something is told
        if connection is not None:
            connection.close()
        return None
    return connection


def connect(home: Home) -> sqlite3.Connection:
    """A connection that cannot write."""
    if not schema.is_plain(home.index):
        raise schema.Garbled("it is no file")
    # WAL wants to write beside the file; where that is not allowed, and nobody else is at work, it must not try.
    frozen = not os.access(home.index.parent, os.W_OK) and not home.index.with_name("index.db-shm").exists()
    connection = sqlite3.connect(
        f"file:{quote(str(home.index))}?mode=ro{'&immutable=1' * frozen}", uri=True, timeout=schema.BUSY,
        check_same_thread=False,
    )  # fmt: skip
    connection.execute("PRAGMA query_only = 1")
    return connection


def _connect_mending(home: Home) -> sqlite3.Connection:
    """One that puts in order what a killed writer left of what readers share, which they cannot write themselves."""
    if not schema.is_plain(home.index):
        raise schema.Garbled("it is no file")
    connection = sqlite3.connect(f"file:{quote(str(home.index))}?mode=rw", uri=True, timeout=5.0)
    connection.execute("PRAGMA query_only = 1")
    return connection


def _connect_alone(home: Home) -> sqlite3.Connection:
    """One that shares nothing, and so reads where the disk has no room for what readers share."""
    connection = _connect_mending(home)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    return connection
