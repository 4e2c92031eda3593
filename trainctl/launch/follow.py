"""Following runs while they work: new events by byte offset, folded into where each run stands.

No index and no process is asked, only the run folder, so that many may follow the same run.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from engine.events import read
from engine.rundir import FINAL, RunDir, regular
from trainctl.launch.again import due
from trainctl.registry.plain import real
from trainctl.registry.progress import Progress

__all__ = ["Follower", "Progress", "Tail"]

CHUNK = 1 << 22  # bytes read at once: a long log is folded in pieces
PATIENCE, AGAIN = 3.0, 60.0  # seconds


class Tail:
    """The events of a file that were not given before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0
        self._rest = b""

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """New events; True in front if the file is another one or was cut, and they are all from its beginning."""
        try:
            with open(self.path, "rb", opener=regular) as file:
                stat = os.fstat(file.fileno())
                again = stat.st_ino != self._inode or stat.st_size < self._offset
                if again:
                    self._offset, self._inode, self._rest = 0, stat.st_ino, b""
                file.seek(self._offset)
                events: list[dict[str, Any]] = []
                while data := file.read(CHUNK):
                    self._offset += len(data)
                    data = self._rest + data
                    self._rest = data[data.rfind(b"\n") + 1 :]
                    events += [event for _, event in read(data)]
                return again, events
        except OSError:
            return False, []


class Follower:
    """One run, followed."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.name = str(run.json("run.json").get("name") or run.id)
        self.progress = Progress()
        self.status = "queued"
        self._tail = Tail(run.events)
        self._told = 0.0
        self._ended_at = 0.0

    @property
    def ended(self) -> bool:
        """True if the run came to an end. The scheduler is given a moment to write down how, if its engine vanished,
        and to queue it again, if that is due.
        """
        if self.status not in FINAL or not self.run.path.exists():
            return self.status in FINAL
        patience = AGAIN if due(self.run) else PATIENCE if self.status == "lost" else 0.0
        return time.monotonic() - self._ended_at >= patience

    def poll(self) -> list[dict[str, Any]]:
        """Look again; returns the events that were not given before.

        A resumed engine cuts its log at the checkpoint and takes those steps again: they are not given twice.
        """
        if not self.run.path.exists():
            self.status = "lost"
            return []
        # The status first: events written before the end are then sure to be read below.
        before, self.status = self.status, self.run.status()
        if self.status != before:
            self._ended_at = time.monotonic()
        again, events = self._tail.read()
        if again:
            self.progress = Progress()
        for event in events:
            self.progress.fold(event)
        fresh = [event for event in events if not again or (real(event.get("t")) or 0.0) > self._told]
        self._told = max(self._told, self.progress.t)
        return fresh

    def reason(self) -> str:
        """Why the run ended as it did, with what to do if that is known."""
        if not self.run.path.exists():
            return "its folder has gone: somebody deleted or moved it"
        ended = self.run.json("exit.json")
        return "; ".join(str(ended[key]) for key in ("reason", "hint") if ended.get(key))
