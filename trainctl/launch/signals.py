"""Signals to the processes of a run: one that asks, and the one that leaves nothing of them.

A process is {pid, ticks, boot, …} as heartbeat.json and launch.json name it (see engine.rundir.process).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from engine.rundir import alive
from trainctl.errors import MachineError

if TYPE_CHECKING:
    import psutil

POLL = 0.05
PATIENCE = 10.0  # seconds in which a killed process is gone, unless the kernel waits for a disk


def send(process: dict[str, Any], number: signal.Signals) -> None:
    """Signal the group that the process leads, or it alone if it was started by hand in somebody's group.

    A stopped process (SIGSTOP, Ctrl-Z) is continued, or it would not hear.
    """
    if not alive(process):
        return
    pid = int(process["pid"])
    try:
        tell = os.killpg if os.getpgid(pid) == pid else os.kill
        tell(pid, number)
        tell(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise MachineError(f"process {pid} belongs to somebody else", "ask its owner to stop it") from None


def kill(process: dict[str, Any]) -> int:
    """End the process, what descends from it, and all of the session that it leads (SIGKILL); how many there were."""
    import psutil

    if not alive(process):
        return 0
    pid = int(process["pid"])
    try:
        first = psutil.Process(pid)
        tree = [first, *first.children(recursive=True)]
        leads = os.getsid(pid) == pid
    except (psutil.Error, OSError):
        return 0
    return _kill(lambda: [*tree, *(_session(pid) if leads else ())])


def kill_session(pid: int) -> int:
    """End what is left of the session that the process `pid` led (SIGKILL), whatever group it put itself in; how many.

    The caller knows that the session is not somebody else's by now.
    """
    return _kill(lambda: _session(pid)) if pid > 1 else 0


def _kill(members: Callable[[], list[psutil.Process]]) -> int:
    import psutil

    killed: set[int] = set()
    deadline = time.monotonic() + PATIENCE
    # Again and again: one of them may have started another in between.
    while left := [each for each in members() if _runs(each)]:
        for each in left:
            try:
                each.kill()
                killed.add(each.pid)
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                raise MachineError(f"process {each.pid} belongs to somebody else", "ask its owner to kill it") from None
        if time.monotonic() > deadline:
            break
        time.sleep(POLL)
    return len(killed)


def _session(pid: int) -> list[psutil.Process]:
    import psutil

    found = []
    for each in psutil.pids():
        with suppress(OSError, psutil.Error):
            if os.getsid(each) == pid:
                found.append(psutil.Process(each))
    return found


def _runs(process: psutil.Process) -> bool:
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
