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
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from trainctl.errors import MachineError
from trainctl.home import Home

VERSION = 6
"""Raised by each change; kept in PRAGMA user_version, so that opening the index costs no further look. A change of what
a column or a cursor holds empties the index, too."""
BUSY = 30.0
"""Seconds for which a connection waits for another one: for its recovery after a crash, or its folding of the log."""
KEPT = 3
"""Indexes set aside that are kept: for who wants to know what happened, and without filling the disk."""

# Primary codes of SQLite that mean "this is not the index that it should be", and not "try later" or "disk full".
_DAMAGE = {
    sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_READONLY,
}  # fmt: skip
_JOURNALS = ("-wal", "-shm")
_ROOM = 1 << 17  # bytes


class Garbled(sqlite3.DatabaseError):
    """A value that no trainctl has written, although SQLite finds nothing wrong."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def open_index(home: Home) -> sqlite3.Connection:
    """The index for writing, at the current version; the caller holds `writing`. Statements commit by themselves.

    Raises sqlite3.DatabaseError, which `is_damage` explains.
    """
    if not all(map(is_plain, _files(home))):
        set_aside(home)
    if not _size(home.index):
        with replacing(home):
            pass
    connection = _connect(home.index)
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 < version <= VERSION:  # no index of ours, or that of a newer trainctl, whose tables are unknown here
        connection.close()
        set_aside(home)
        with replacing(home):
            pass
        connection = _connect(home.index)
    elif version < VERSION:
        _migrate(connection)
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """True if the file itself is at fault, so that building it again helps."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # a text that is not UTF-8 is found by Python
        return isinstance(error, sqlite3.OperationalError)
    return code & 0xFF in _DAMAGE


def set_aside(home: Home) -> None:
    """Rename index.db to index.db.damaged-TIME and keep the newest `KEPT` of those; the caller holds `writing`."""
    damaged = f"{home.index.name}.damaged-"
    for path in _files(home):
        if path == home.index or not is_plain(path):
            with contextlib.suppress(FileNotFoundError):
                path.rename(path.with_name(f"{damaged}{time.time_ns()}"))
    _remove_journals(home)
    for old in sorted(home.index.parent.glob(f"{damaged}*"))[:-KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()


@contextlib.contextmanager
def replacing(home: Home) -> Iterator[sqlite3.Connection]:
    """A new index without a run, which takes the place of the one that is there, if any, when the block ends well.

    So nobody ever finds one without tables, and whatever fails, as on a full disk, leaves the old one as it is. The
    caller holds `writing`. Raises sqlite3.Error and OSError.
    """
    new = home.index.with_name(".index.db.new")
    _remove(new)
    try:
        with contextlib.closing(_connect(new)) as connection:
            _migrate(connection)
            yield connection
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # closing would not say that there is no room
        if not all(map(is_plain, _files(home))):
            set_aside(home)
        _remove_journals(home)
        new.replace(home.index)
    finally:
        _remove(new)


@contextlib.contextmanager
def writing(home: Home, wait: float) -> Iterator[bool]:
    """Be the one writer of the index: yields True, or False if another still was after `wait` seconds.

    Raises MachineError if the folder of the index cannot be written, also for an OSError of what is done meanwhile.
    """
    lock = home.index.with_name("index.lock")
    try:
        if lock.parent != home.path:
            lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise unwritable(home, error.strerror or str(error)) from None
    try:
        yield _flock(descriptor, time.monotonic() + wait)
    except OSError as error:  # the disk is full, or may only be read: files cannot be renamed
        raise unwritable(home, error.strerror or str(error)) from None
    finally:
        os.close(descriptor)


def unwritable(home: Home, reason: str) -> MachineError:
    """The error for an index that cannot be written."""
    with contextlib.suppress(OSError):
        disk = os.statvfs(home.index.parent)
        if disk.f_bavail * disk.f_frsize < _ROOM:  # SQLite calls some of what follows from that an I/O error
            reason += " (no space left on the disk)"
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


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _beside(index: Path) -> list[Path]:
    return [index.with_name(index.name + suffix) for suffix in _JOURNALS]


def _files(home: Home) -> list[Path]:
    return [home.index, *_beside(home.index)]


def is_plain(path: Path) -> bool:
    """False for a folder, a pipe, a link: nothing that SQLite made, and some of them it would wait for without end."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(index: Path) -> None:
    for path in (index, *_beside(index)):
        path.unlink(missing_ok=True)


def _remove_journals(home: Home) -> None:
    for path in _beside(home.index):
        path.unlink(missing_ok=True)


def _migrate(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database, Migrations

    migrations = Migrations("index")
    migrations(name="runs")(_create_runs)
    migrations(name="points")(_create_points)
    migrations(name="threats")(_add_threats)
    migrations(name="readings")(_add_readings)
    migrations(name="archive")(_add_archive)
    migrations(name="damage")(_add_damage)
    migrations(name="notes")(_add_lines_of_notes)
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


def _add_damage(db: object) -> None:
    """Where events.jsonl is damaged, in what a cursor has seen."""
    _empty(db)


def _add_lines_of_notes(db: object) -> None:
    """Notes with their line breaks."""
    _empty(db)


def _empty(db: object) -> None:
    """Forget everything: a new column is known once the run folders have been read again."""
    for name in ("runs", "cursors", "evals", "points"):
        db.execute(f"DELETE FROM {name}")  # type: ignore[attr-defined]
