"""The home folder and its disk: can it be written, will the queue fit, is the index sound, is it on a network."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator

from trainctl.doctor.finding import MISSING, OK, WARNING, Finding, size
from trainctl.doctor.view import View
from trainctl.errors import TrainctlError
from trainctl.filesystem import filesystem, is_network

LOW_DISK = 2 << 30  # bytes
SQLITE_FIXED = (3, 51, 3)


def check(view: View) -> Iterator[Finding]:
    """Home, temporary folder, disk, file system, SQLite and the index."""
    for part in (_home, _temporary, _disk, _network, _sqlite, _index):
        yield from part(view)


def _home(view: View) -> Iterator[Finding]:
    home = view.home
    try:
        home.create()
        for folder in (home.path, home.runs):
            probe = folder / f".doctor.{os.getpid()}.tmp"
            probe.write_bytes(b"")
            probe.unlink()
        yield Finding("home", OK, str(home.path))
    except TrainctlError as error:
        yield Finding("home", MISSING, str(error), error.hint)
    except OSError as error:
        hint = "set TRAINCTL_HOME or --home to a folder that you may write"
        yield Finding("home", MISSING, f"{home.path} cannot be written: {error.strerror}", hint)


def _temporary(view: View) -> Iterator[Finding]:
    try:
        with tempfile.TemporaryFile():
            yield Finding("temporary files", OK, tempfile.gettempdir())
    except OSError as error:
        detail = f"cannot be written: {error.strerror}"
        yield Finding("temporary files", WARNING, detail, "set TMPDIR to a folder that you may write")


def _disk(view: View) -> Iterator[Finding]:
    try:
        free = shutil.disk_usage(view.home.path).free
    except OSError:
        return
    enough = free >= LOW_DISK
    hint = "" if enough else "delete runs with `trainctl rm`"
    yield Finding("disk", OK if enough else WARNING, f"{size(free)} free", hint)


def _network(view: View) -> Iterator[Finding]:
    kind, index = filesystem(view.home.path), view.home.index
    if is_network(kind):
        where = f"; the index is at {index}" if index.parent != view.home.path else ""
        hint = "locks are weak there: use one machine at a time, or set TRAINCTL_HOME to a local disk"
        yield Finding("file system", WARNING, f"{kind} (network){where}", hint)
    else:
        yield Finding("file system", OK, kind or "unknown")


def _sqlite(view: View) -> Iterator[Finding]:
    if sqlite3.sqlite_version_info >= SQLITE_FIXED:
        yield Finding("sqlite", OK, sqlite3.sqlite_version)
    else:
        detail = f"{sqlite3.sqlite_version}: before 3.51.3 two writers can damage an index"
        hint = "trainctl has but one writer; `trainctl reindex` rebuilds"
        yield Finding("sqlite", WARNING, detail, hint)


def _index(view: View) -> Iterator[Finding]:
    why = view.index_damage
    index = view.home.index
    if why:
        yield Finding("index", WARNING, f"damaged: {why}", "trainctl doctor --fix builds it again", fixable=True)
    else:
        yield Finding("index", OK, size(index.stat().st_size) if index.exists() else "none yet")
