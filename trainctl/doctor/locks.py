"""Who holds the locks of a home. The kernel frees those of a dead process, but not those of one that stands still."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trainctl.doctor.finding import OK, WARNING, Finding
from trainctl.doctor.view import View
from trainctl.filesystem import filesystem, is_network
from trainctl.launch import scheduler

LOCKS = Path("/proc/locks")


def check(view: View) -> Iterator[Finding]:
    """Who holds them, and whether that process can ever let go."""
    held = []
    elected = scheduler.lock(view.home)
    for path in (elected, view.home.index.with_name("index.lock")):
        name, pid = path.name, holder(path)
        if pid is not None:
            held.append(f"{name} by process {pid}")
            if state(pid) in ("T", "t"):
                detail = f"{name} is held by process {pid}, which stands still (state T): others wait for it in vain"
                yield Finding("locks", WARNING, detail, f"kill -CONT {pid} lets it go on, kill {pid} ends it")
                return
        elif path == elected and is_network(filesystem(view.home.path)) and scheduler.alive(view.home):
            detail = f"{name} is held by no process of this machine: by one elsewhere, or stale (network file system)"
            hint = f"if no other machine works with this home, delete {path}"
            yield Finding("locks", WARNING, detail, hint)
            return
    yield Finding("locks", OK, ", ".join(held) or "free")


def holder(path: Path, table: Path = LOCKS) -> int | None:
    """Pid of the process that holds the lock on the file at `path`; None if nobody does, or it cannot be known."""
    try:
        file = path.stat()
        rows = table.read_text().splitlines()
    except OSError:
        return None
    where = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    for row in rows:
        # "1: FLOCK  ADVISORY  WRITE 17242 fe:00:3885291 0 EOF"; one who waits has "->" behind the number.
        parts = row.split()
        if len(parts) > 5 and parts[1] != "->" and parts[3] == "WRITE" and parts[5] == where:
            return int(parts[4]) if parts[4].isdecimal() and parts[4] != "0" else None
    return None


def state(pid: int) -> str:
    """The state of a process as `ps` names it, "" if it has gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
