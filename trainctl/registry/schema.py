"""The tables of index.db, and how the file is opened, migrated, or set aside when it is damaged.

The index is a cache: all of it follows from the run folders. So a file that cannot be trusted is never repaired;
it is set aside and built again.

sqlite_utils takes longer to import than a whole `trainctl ls`, and is imported only to create or migrate the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator

from trainctl.errors import MachineError
from trainctl.home import Home

VERSION = 4
"""Number of migrations; kept in PRAGMA user_version, so that opening the index costs no further look. One that changes
what a column or a cursor holds empties the index, too."""

# Primary codes of SQLite that mean "this is not the index that it should be", and not "try later" or "disk full".
_DAMAGE = {
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH,
}  # fmt: skip


def open_index(home: Home) -> sqlite3.Connection:
    """The index for writing, at the current version; the caller holds `writing`. Statements commit by themselves.

    Raises sqlite3.DatabaseError, which `is_damage` explains.
    """
    connection = _connect(home)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:  # written by a newer trainctl, whose tables are unknown here
        connection.close()
        set_aside(home)
        connection = _connect(home)
        version = 0
    if version < VERSION:
        _migrate(connection)
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """True if the file itself is at fault, so that building it again helps."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.DatabaseError) and code is not None and code & 0xFF in _DAMAGE


def set_aside(home: Home) -> None:
    """Rename index.db to index.db.damaged-TIME; the caller holds `writing`."""
    with contextlib.suppress(FileNotFoundError):
        home.index.rename(home.index.with_name(f"{home.index.name}.damaged-{time.time_ns()}"))
    _remove_journals(home)


def delete(home: Home) -> None:
    """Delete index.db; the caller holds `writing`."""
    home.index.unlink(missing_ok=True)
    _remove_journals(home)


@contextlib.contextmanager
def writing(home: Home, wait: float) -> Iterator[bool]:
    """Be the one writer of the index: yields True, or False if another still was after `wait` seconds.

    Raises MachineError if the home folder cannot be written.
    """
    try:
        descriptor = os.open(home.path / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise unwritable(home, error.strerror or str(error)) from None
    try:
        yield _flock(descriptor, time.monotonic() + wait)
    finally:
        os.close(descriptor)


def unwritable(home: Home, reason: str) -> MachineError:
    """The error for an index that cannot be written."""
    return MachineError(
        f"cannot write the index {home.index}: {reason}",
        "check the folder's permissions and free space, or choose another one with TRAINCTL_HOME or --home",
    )


def unreadable(home: Home, reason: str) -> MachineError:
    """The error for an index that cannot be read."""
    return MachineError(f"cannot read the index {home.index}: {reason}", "run `trainctl reindex` to build it again")


def _flock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)


def _connect(home: Home) -> sqlite3.Connection:
    connection = sqlite3.connect(home.index, timeout=5.0, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _remove_journals(home: Home) -> None:
    for suffix in ("-wal", "-shm"):
        home.index.with_name(home.index.name + suffix).unlink(missing_ok=True)


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database, Migrations

    migrations = Migrations("index")
    migrations(name="runs")(_create_runs)
    migrations(name="points")(_create_points)
    migrations(name="threats")(_add_threats)
    migrations(name="readings")(_add_readings)
    migrations(name="archive")(_add_archive)
    migrations.apply(Database(connection))
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _create_runs(db: object) -> None:
    """One row a run, as the tables show it; `settings` is its recipe with dotted keys."""
    db["runs"].create(  # type: ignore[index]
        {
            "id": str, "name": str, "recipe": str, "title": str, "method": str, "topology": bool, "dataset": str,
            "model": str, "seed": int, "group": str, "pair": str, "status": str, "epoch": int, "epochs": int,
            "created": float, "started": float, "finished": float, "seconds_per_epoch": float, "device": str,
            "metrics": str, "tags": str, "note": str, "settings": str,
        },
        pk="id",
    )  # fmt: skip
    db["runs"].create_index(["created", "id"])  # type: ignore[index]
    # How far events.jsonl has been read, what it said besides points, and what the folder looked like then.
    db["cursors"].create(  # type: ignore[index]
        {"run": str, "inode": int, "offset": int, "tail": bytes, "signature": str, "final": bool, "seen": str},
        pk="run",
    )
    db["evals"].create(  # type: ignore[index]
        {"run": str, "checkpoint": str, "metric": str, "value": float, "n": int, "settings": str},
        pk=("run", "checkpoint", "metric"),
    )


def _create_points(db: object) -> None:
    """Curves. Without a rowid the rows lie on disk in the order in which they are read. A NULL value is NaN."""
    db.execute(  # type: ignore[attr-defined]
        """CREATE TABLE points (
            run TEXT, kind TEXT, metric TEXT, step INTEGER, epoch INTEGER, t REAL, value REAL,
            PRIMARY KEY (run, kind, metric, step)
        ) WITHOUT ROWID"""
    )


def _add_threats(db: object) -> None:
    """What each of a run's metrics was measured under."""
    _empty(db)
    db["runs"].add_column("threats", str)  # type: ignore[index]


def _add_readings(db: object) -> None:
    """What of a run is our reading of its methods."""
    _empty(db)
    db["runs"].add_column("our_reading", str)  # type: ignore[index]


def _add_archive(db: object) -> None:
    """Which runs are archived, and the progress of each in its cursor; a cursor tells the status without its run."""
    _empty(db)
    db["runs"].add_column("archived", bool)  # type: ignore[index]
    db["cursors"].transform(rename={"final": "status"}, types={"final": str})  # type: ignore[index]
    # What the list of 10 000 runs asks for at each look, without reading the rows.
    db["runs"].create_index(["archived", "created", "id"])  # type: ignore[index]
    db["runs"].create_index(["archived", "status", "id"])  # type: ignore[index]


def _empty(db: object) -> None:
    """Forget everything: a new column is known once the run folders have been read again."""
    for name in ("runs", "cursors", "evals", "points"):
        db.execute(f"DELETE FROM {name}")  # type: ignore[attr-defined]
