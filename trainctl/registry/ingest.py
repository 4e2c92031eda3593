"""Brings the index up to date with the run folders.

A run costs seven stats while nothing in its folder changes, or two if it has ended and a brief look is enough. What
has changed is written in one transaction a run, together with the cursor that says how far its events were read.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.rundir import FINAL, RunDir, content
from trainctl.errors import MachineError, Stale, refused
from trainctl.home import Home, index_in_memory
from trainctl.registry import schema
from trainctl.registry.events import Cursor, follow, forget
from trainctl.registry.plain import dotted, finite, integer, prose, rank, real, table, text
from trainctl.registry.readings import reading
from trainctl.registry.threats import Threat, threat

WAIT = 2.0
"""Seconds to wait for another writer before going on with what the index holds."""
FIRST_WAIT = 60.0
"""The same while there is no index to go on with."""

TICK = 2_000_000_000
"""Nanoseconds; the coarsest clock of a file system."""

_WATCHED = ("run.json", "events.jsonl", "exit.json", "heartbeat.json", "launch.json", "labels.json", "recipe.toml")


def refresh(home: Home, runs: Iterable[str] | None = None, *, brief: bool = False) -> bool:
    """Read what is new in all run folders, or in those of the ids `runs`; forget runs whose folder is gone.

    A `brief` look takes a run that has ended as it is while its folder has got no other file and events.jsonl is as it
    was. It misses only what somebody wrote *into* another file, where trainctl and the engine replace files.
    If another process is doing so, wait for it briefly and return. True if this one could write the index. Raises
    MachineError if nobody can.
    """
    if not home.path.is_dir() or (not home.index.exists() and not home.run_dirs()):
        return False
    if _may_only_be_read(home):
        return False
    with schema.writing(home, WAIT if home.index.exists() else FIRST_WAIT) as alone:
        if alone:
            _mended(home, lambda connection: _bring_up(connection, home, runs, brief))
        return alone


def _may_only_be_read(home: Home) -> bool:
    """True in somebody else's home: what its owner has indexed is what there is to see."""
    return home.index.exists() and not os.access(home.index.parent, os.W_OK)


def freshen(home: Home, runs: Iterable[str] | None = None, *, brief: bool = False, exact: bool = False) -> bool:
    """As `refresh` for whoever only looks: an index that cannot be written is taken as it is, with a warning `Stale`;
    where there is none, this process gets one in memory. So it does for an `exact` look: who is about to delete @last
    must not be told which run that was before.

    So runs can be listed, stopped and deleted when the disk is full. Raises MachineError if memory has no room either.
    """
    try:
        if _may_only_be_read(home):
            told = f"{home.path} may only be read, and is shown as its owner's trainctl saw it last"
            warnings.warn(Stale(told), stacklevel=2)
        return refresh(home, runs, brief=brief)
    except MachineError as error:
        written, instead = False, "this is what the index held before"
        if exact or not home.index.exists():
            instead = "the run folders were read without it"
            try:
                index_in_memory(home)
                written = refresh(home, runs, brief=brief)
            except (MachineError, OSError):
                raise error from None
        warnings.warn(Stale(f"{error}; {instead}. Mend it: {error.hint}"), stacklevel=2)
        return written


def rebuild(home: Home) -> int:
    """Read all run folders into a new index, which replaces the old one; the number of runs. Raises MachineError, and
    then the old one is still there.
    """
    home.create()
    with schema.writing(home, FIRST_WAIT) as alone:
        if not alone:
            raise schema.unwritable(home, "another process has been writing it for a minute")
        try:
            with schema.replacing(home) as connection:
                _bring_up(connection, home, None)
        except sqlite3.Error as error:
            raise schema.unwritable(home, str(error)) from None
    return sum(1 for _ in signatures(home))


def build_again(home: Home) -> None:
    """Set the index aside and build it again, as a reader found it damaged; the caller holds `schema.writing`."""
    schema.set_aside(home)
    _mended(home, lambda connection: _bring_up(connection, home, None))


def _mended(home: Home, work: Callable[[sqlite3.Connection], None]) -> None:
    """Do `work` on the index; if the file turns out to be damaged, once more on a new one."""
    for attempt in (1, 2):
        try:
            with contextlib.closing(schema.open_index(home)) as connection:
                work(connection)
            return
        except sqlite3.Error as error:
            if attempt == 2 or not schema.is_damage(error):
                raise schema.unwritable(home, str(error)) from None
            schema.set_aside(home)


def _bring_up(connection: sqlite3.Connection, home: Home, runs: Iterable[str] | None, brief: bool = False) -> None:
    query, wanted = "SELECT run, signature, status FROM cursors", None
    # A new index, also one in place of a damaged one, is to know all runs.
    if runs is not None and connection.execute("SELECT 1 FROM cursors LIMIT 1").fetchone():
        wanted = list(runs)
        query += " WHERE run IN (SELECT value FROM json_each(?))"
    rows = connection.execute(query, () if wanted is None else (json.dumps(wanted),))
    known = {run: (*str(stored).partition("|")[::2], status) for run, stored, status in rows}
    ended = [run for run, (_, _, status) in known.items() if status in FINAL] if brief else []
    stamps = dict(_stamps(home, ended))
    same = {run for run, stamp in stamps.items() if stamp and stamp == known[run][1]}
    found = dict(signatures(home, wanted, same))
    for gone in known.keys() - found.keys() - same:
        with _transaction(connection):
            _remove(connection, gone)
    for run, signature in found.items():
        before, _, status = known.get(run, ("", "", ""))
        if before != signature or not (status in FINAL or status == status_of(home.run(run))):
            stamps.pop(run, None)
            with _transaction(connection):
                _update(connection, home.run(run), signature)
    closely = [(f"{found[run]}|{stamp}", run) for run, stamp in stamps.items() if stamp and run in found]
    if closely:  # and in vain
        with _transaction(connection):
            connection.executemany("UPDATE cursors SET signature = ? WHERE run = ?", closely)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _remove(connection: sqlite3.Connection, run: str) -> None:
    forget(connection, run)
    connection.execute("DELETE FROM runs WHERE id = ?", (run,))
    connection.execute("DELETE FROM cursors WHERE run = ?", (run,))


def signatures(home: Home, runs: Iterable[str] | None = None, but: Container[str] = ()) -> Iterator[tuple[str, str]]:
    """Each run's id with what changes whenever one of its watched files does: all but events.jsonl are replaced whole.

    All runs in the order of their ids, or those of `runs` that are there; without those of `but`.
    """
    with _inside(home.runs) as folder:
        names = () if folder is None else sorted(os.listdir(folder)) if runs is None else runs  # noqa: PTH208
        for run in names:
            if run in but or not run.isprintable() or run.startswith("."):
                continue
            if signature := _signature(folder, run):
                yield run, signature


def _stamps(home: Home, runs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The `_stamp` of the folder of each run."""
    with _inside(home.runs) as folder:
        yield from ((run, _stamp(folder, run)) for run in runs if folder is not None)


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[int | None]:
    """A descriptor to look at files from; None if the folder is not there, MachineError if it cannot be read. What is
    looked at are strings from within it, since thousands of runs are looked at for every `trainctl ls`, and whole paths
    take twice as long.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as error:
        raise refused(f"cannot list the runs in {folder}", error) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _signature(folder: int | None, run: str) -> str:
    parts = []
    for name in _WATCHED:
        try:
            found = os.stat(f"{run}/{name}", dir_fd=folder)
            parts.append(f"{found.st_ino}.{found.st_size}.{found.st_mtime_ns}")
        except OSError:
            if name == "run.json":  # not a run, or not yet
                return ""
            parts.append("-")
    return " ".join(parts)


def _stamp(folder: int | None, run: str) -> str:
    """What changes whenever a file of the run is made, replaced or removed, or events.jsonl grows; "" if it cannot be
    told: what happens within the same tick of the file system's clock leaves the time of a folder as it is.
    """
    try:
        found, events = os.stat(run, dir_fd=folder), os.stat(f"{run}/events.jsonl", dir_fd=folder)
    except OSError:
        return ""
    if time.time_ns() - found.st_ctime_ns < TICK:
        return ""
    return f"{found.st_ino}.{found.st_ctime_ns} {events.st_ino}.{events.st_size}.{events.st_mtime_ns}"


def status_of(folder: RunDir) -> str:
    """The run's status, also where its files name no process that could be."""
    try:
        return folder.status()
    except (OverflowError, ValueError):  # a pid beyond any process table
        return "lost"


def _update(connection: sqlite3.Connection, folder: RunDir, signature: str) -> None:
    cursor = Cursor()
    stored = connection.execute(
        'SELECT inode, "offset", tail, seen FROM cursors WHERE run = ?', (folder.id,)
    ).fetchone()
    if stored:
        inode, offset, tail, seen = stored
        cursor = Cursor(inode, offset, tail, json.loads(seen))
    stamp = _stamp(None, str(folder.path))
    status, read = status_of(folder), (cursor.inode, cursor.offset, cursor.tail)
    cursor = follow(connection, folder.id, folder.events, cursor)
    row = _row(connection, folder, cursor.seen, status)
    names = ", ".join(f'"{name}"' for name in row)
    before = connection.execute(f"SELECT {names} FROM runs WHERE id = ?", (folder.id,)).fetchone()
    # A heartbeat alone is no news.
    if before != tuple(row.values()) or read != (cursor.inode, cursor.offset, cursor.tail):
        marks = ", ".join("?" * len(row))
        values = [_rowid(connection), *row.values()]
        connection.execute(f"INSERT OR REPLACE INTO runs (rowid, {names}) VALUES (?, {marks})", values)
    looked = f"{signature}|{stamp}"
    state = (folder.id, cursor.inode, cursor.offset, cursor.tail, looked, status, json.dumps(cursor.seen))
    connection.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?, ?, ?, ?)", state)


def _rowid(connection: sqlite3.Connection) -> int:
    """A rowid that no row of `runs` ever had, also not one that is gone: so a rowid stands for what its row says.

    Whoever remembers something about a row by its rowid need only look at the larger ones.
    """
    newest = connection.execute("SELECT max(rowid) FROM runs").fetchone()[0]
    return max(time.time_ns(), (newest or 0) + 1)


def _row(connection: sqlite3.Connection, folder: RunDir, seen: dict[str, Any], status: str) -> dict[str, object]:
    """The row of `runs`: a function of the folder's files alone."""
    run, labels = folder.json("run.json"), folder.json("labels.json")
    settings, as_json, our_reading = _recipe(folder, _stat(folder.recipe))
    tags = labels.get("tags", run.get("tags"))
    topology = settings.get("topology.enabled") is True
    metrics, measured = _metrics(connection, folder.id, seen)
    return {
        "id": folder.id,
        "name": text(run.get("name")) or folder.id,
        "recipe": text(run.get("recipe")),
        "title": text(settings.get("title")),
        "our_reading": our_reading,
        "method": text(settings.get("method.name")),
        "topology": topology,
        "dataset": text(settings.get("data.dataset")),
        "model": text(settings.get("model.arch")),
        "seed": _first(integer(run.get("seed")), integer(settings.get("run.seed"))),
        "group": text(run.get("group")),
        "pair": text(run.get("pair")),
        "status": status,
        "epoch": seen.get("epoch", 0),
        "epochs": _first(integer(settings.get("schedule.epochs")), seen.get("epochs")),
        "created": real(run.get("created")),
        "started": seen.get("started"),
        "finished": _finished(folder, status),
        "seconds_per_epoch": _seconds_per_epoch(connection, folder.id),
        "device": seen.get("device", ""),
        "metrics": json.dumps(metrics),
        "tags": json.dumps([text(tag) for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []),
        "note": prose(labels.get("note")),
        "settings": as_json,
        "threats": json.dumps(measured),
        "archived": labels.get("archived") is True,
    }


@lru_cache(maxsize=64)  # of runs at work everything else is read several times a second
def _recipe(folder: RunDir, stat: object) -> tuple[dict[str, Any], str, str]:
    """The recipe with dotted keys, the same as JSON, and what of it is our reading."""
    settings = read_settings(folder)
    return settings, json.dumps(settings, default=str), text(reading(settings))


def _stat(path: Path) -> object:
    """Another value whenever the file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_settings(folder: RunDir) -> dict[str, Any]:
    """recipe.toml with dotted keys ("optim.lr"); {} if it is missing or damaged."""
    import tomli

    try:
        return dotted(tomli.loads(content(folder.recipe).decode()))
    except (OSError, ValueError, RecursionError):
        return {}


def _metrics(
    connection: sqlite3.Connection, run: str, seen: dict[str, Any]
) -> tuple[dict[str, float | None], dict[str, Threat]]:
    """The evaluation of `best`, else of `last`, and what it was measured under; else the last epoch's values."""
    evals: dict[str, dict[str, float | None]] = {}
    threats: dict[str, dict[str, Threat]] = {}
    query = "SELECT checkpoint, metric, value, n, settings FROM evals WHERE run = ?"
    rows = sorted(connection.execute(query, (run,)), key=lambda row: rank(row[1]))
    for checkpoint, metric, value, n, settings in rows:
        evals.setdefault(checkpoint, {})[metric] = finite(value)  # SQLite's JSON has no infinity either
        if value is not None:
            about = threat({**json.loads(settings), "n": n, "checkpoint": checkpoint})
            threats.setdefault(checkpoint, {})[metric] = about
    for checkpoint in ("best", "last"):
        if checkpoint in evals:
            return evals[checkpoint], threats.get(checkpoint, {})
    return table(seen.get("latest")), {}


def _seconds_per_epoch(connection: sqlite3.Connection, run: str) -> float | None:
    """The median, since the first epoch also pays for warming up."""
    query = "SELECT value FROM points WHERE run = ? AND kind = 'epoch' AND metric = 'seconds'"
    values = sorted(value for (value,) in connection.execute(query, (run,)) if value is not None)
    middle = len(values) // 2
    if not values:
        return None
    return float(values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2)


def _finished(folder: RunDir, status: str) -> float | None:
    """When it ended; of a lost run the last sign of life."""
    if status not in FINAL:
        return None
    return real(folder.json("exit.json" if status != "lost" else "heartbeat.json").get("t"))


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)
