"""What killed processes left half done in a home. Nothing that is named here is of value."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from trainctl.doctor.finding import OK, WARNING, Finding, counted, lines, size
from trainctl.doctor.view import View
from trainctl.home import Home
from trainctl.launch import frozen
from trainctl.launch.folders import STAGED

AGE = 3600.0  # seconds after which what should live for moments is taken to be left over
INSIDE = ("", "checkpoints", "eval", "attempts", "timed")


@dataclass(frozen=True)
class Leftover:
    """A file or a folder, what it is, and its bytes."""

    path: Path
    kind: str
    bytes: int

    def delete(self) -> bool:
        """True if it is gone by our hand."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            with suppress(OSError):
                self.path.unlink()
        return not os.path.lexists(self.path)


def check(view: View) -> Iterator[Finding]:
    """All leftovers, kind by kind."""
    found = leftovers(view.home)
    each = []
    for kind in dict.fromkeys(left.kind for left in found):
        of_it = [left for left in found if left.kind == kind]
        each.append(f"{counted(len(of_it), kind)}, {size(sum(left.bytes for left in of_it))}")
    if each:
        hint = "trainctl doctor --fix deletes them"
        yield Finding("leftovers", WARNING, lines("left by processes that were killed", each), hint, fixable=True)
    else:
        yield Finding("leftovers", OK, "none")


def leftovers(home: Home) -> list[Leftover]:
    """Folders half made or half deleted, temporary files, and damaged indexes but the newest."""
    try:
        return [*_folders(home), *_temporary(home), *_indexes(home), *_code(home)]
    except OSError:
        return []  # which other checks report


def _folders(home: Home) -> Iterator[Leftover]:
    for entry in _entries(home.runs):
        if not entry.is_dir(follow_symlinks=False):
            continue
        if entry.name.startswith("."):
            # A rename changes no more than the time of the folder's own entry, so that counts here.
            if entry.name.endswith(".removed") and _old(entry.stat(follow_symlinks=False).st_ctime):
                yield Leftover(Path(entry.path), "half-deleted run", weight(entry.path))
        elif _half_made(Path(entry.path)):
            yield Leftover(Path(entry.path), "half-made run", weight(entry.path))


def _half_made(folder: Path) -> bool:
    """True if it never became a run: it is empty, or holds what is written before run.json and nothing else."""
    try:
        names = set(os.listdir(folder))  # noqa: PTH208
        whole = {name for name in names if not name.endswith(".tmp")}
        if whole and (STAGED not in whole or whole - {STAGED, "recipe.toml", "queue.json", "timed"}):
            return False
        return _old(max(os.lstat(path).st_mtime for path in (folder, *(folder / name for name in names))))
    except OSError:
        return False


def _temporary(home: Home) -> Iterator[Leftover]:
    """Files that were about to be renamed over another one. No link is followed out of the home."""
    runs = [Path(entry.path) for entry in _entries(home.runs) if not entry.name.startswith(".")]
    for folder in (home.path, *(run / inside for run in runs if not run.is_symlink() for inside in INSIDE)):
        if folder != home.path and os.path.islink(folder):  # noqa: PTH114 - unlike pathlib's, this never raises
            continue
        for entry in _entries(folder):
            if entry.name.startswith(".") and entry.name.endswith((".tmp", ".kept")) and _nobodys(entry.name):
                about = entry.stat(follow_symlinks=False)
                if entry.is_file(follow_symlinks=False) and _old(about.st_mtime):
                    yield Leftover(Path(entry.path), "temporary file", about.st_size)


def _nobodys(name: str) -> bool:
    """False if the process lives whose number the name bears: `.exit.json.4711.tmp`."""
    import psutil

    number = name.split(".")[-2]
    return not (number.isdecimal() and len(number) < 10 and psutil.pid_exists(int(number)))


def _indexes(home: Home) -> Iterator[Leftover]:
    """Those set aside, but the newest; a name ends in the time in nanoseconds."""
    aside = sorted(home.index.parent.glob(f"{home.index.name}.damaged-*"), key=lambda path: (len(path.name), path.name))
    for path in aside[:-1]:
        if path.is_file() or path.is_symlink():
            yield Leftover(path, "damaged index", path.lstat().st_size)


def _code(home: Home) -> Iterator[Leftover]:
    """Frozen code that no run needs any more."""
    for path in frozen.unused(home):
        yield Leftover(path, "unused code folder", weight(path))


def weight(folder: str | Path) -> int:
    """Bytes of all files below `folder`; one that has two names counts once. Links are not followed."""
    seen: dict[tuple[int, int], int] = {}
    waiting = [str(folder)]
    while waiting:
        for entry in _entries(Path(waiting.pop())):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            else:
                with suppress(OSError):
                    about = entry.stat(follow_symlinks=False)
                    seen[about.st_dev, about.st_ino] = about.st_size
    return sum(seen.values())


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _old(moment: float) -> bool:
    return time.time() - moment > AGE
