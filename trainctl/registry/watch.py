"""Keeps the index up to date for somebody who looks all the time."""

from __future__ import annotations

import os
import sqlite3
import threading
import time

from trainctl.home import Home
from trainctl.registry import ingest, query

PERIOD = 1.0  # seconds between two full refreshes at least, and between two looks whether processes are alive
TICK = 2_000_000_000  # nanoseconds; the coarsest clock of a file system
SHARE = 300  # a full refresh is waited for this many times as long as it takes,
LONGEST = 60.0  # but no longer than these seconds


class Watch:
    """Looks at the run folders of `home`. One for a whole process; threads may share it.

    A look is cheap, since a run that ended seldom changes: only the files of the others are looked at each time,
    and everything from time to time.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.version = 0
        """Counts the looks that found something new, so that an asker can tell whether it knows all."""
        self._lock = threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._unfinished: dict[str, str] = {}
        self._names: set[str] = set()
        self._names_at = 0
        # Names that are there and not in the index, or in the index and not there.
        self._pending: set[str] = set()
        self._full_due = self._alive_due = 0.0
        self._held: tuple[int, sqlite3.Connection | None] = (0, None)

    def look(self) -> int:
        """Bring the index up to date; returns `version`. The first look takes the index as it is, if there is one.

        Raises MachineError if the index cannot be read or written.
        """
        with self._lock:
            first = not self.version and bool((query.stamp(self.home) or (0,))[0])
            if not first:
                self._refresh()
            stamp = query.stamp(self.home)
            if stamp != self._stamp or not self.version:
                self._stamp, self.version = stamp, self.version + 1
                self._unfinished = query.watched(self.home) if stamp else {}
                self._hold()
            return self.version

    def _hold(self) -> None:
        """Keep the index open, or the one that took its place."""
        try:
            file = os.stat(self.home.index).st_ino  # noqa: PTH116
        except OSError:
            return
        if file != self._held[0]:
            if self._held[1] is not None:
                self._held[1].close()
            self._held = file, query.hold(self.home)

    def wake(self) -> None:
        """Have the next look see everything, since something was done that it might otherwise see later."""
        self._full_due = 0.0

    def _refresh(self) -> None:
        now = time.monotonic()
        self._pending |= self._new_names()
        # Until an index that was deleted is back, all runs seem to be gone.
        if now >= self._full_due or not os.path.lexists(self.home.index):
            self._full_due = float("inf")  # whoever wakes from here on is heard by the next look
            self._alive_due = now + PERIOD
            self._pending |= self._names
            try:
                ingest.refresh(self.home)
            finally:
                took = time.monotonic() - now
                self._full_due = min(self._full_due, now + took + max(PERIOD, min(SHARE * took, LONGEST)))
        elif changed := self._changed(now):
            ingest.refresh(self.home, changed)
        else:
            return
        known = query.among(self.home, self._pending)
        self._pending = {run for run in self._pending if (run in known) != (run in self._names)}

    def _changed(self, now: float) -> list[str]:
        """Runs to be read: new and deleted ones, those with new files, and each second all that have not ended."""
        seen = dict(ingest.signatures(self.home, self._pending | self._unfinished.keys()))
        alive_due = now >= self._alive_due
        if alive_due:
            self._alive_due = now + PERIOD
        changed = (run for run, before in self._unfinished.items() if alive_due or seen.get(run) != before)
        return [*changed, *(run for run in self._pending if run in seen or run not in self._names)]

    def _new_names(self) -> set[str]:
        """Names that the folder of runs has got or lost since the last call. A run's is there before its run.json."""
        try:
            changed = os.stat(self.home.runs).st_mtime_ns  # noqa: PTH116
            if changed == self._names_at:
                return set()
            names = set(os.listdir(self.home.runs))  # noqa: PTH208
        except OSError:
            changed, names = 0, set()
        new = names ^ self._names
        # What comes within the same tick of the file system's clock leaves the time as it is.
        self._names, self._names_at = names, changed if time.time_ns() - changed > TICK else 0
        return new
