"""The life of the process in its run folder: the lock, the heartbeat, signals, the time limit, and how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import signal
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from engine import narrate
from engine.events import EventLog, Lines
from engine.rundir import STOP_SIGNALS, RunDir, me

HEARTBEAT_SECONDS = 5.0
LAST_BEAT_SECONDS = 10.0
"""For which the end waits for a beat that is being written; on a disk that hangs, for no longer."""

TIMED_OUT = 124
"""Exit code of a run that reached run.max_hours: that of timeout(1)."""


class AlreadyRunning(Exception):
    """Another process works in this run folder."""


class Lifecycle:
    """Context of one process in one run folder. `record=False` (evaluating again) leaves the run's status alone.

    What it keeps in the folder for others (heartbeat, history, reserve) never ends a run that can go on without.
    """

    def __init__(self, rundir: RunDir, *, record: bool = True) -> None:
        self.rundir = rundir
        self.record = record
        self.step = 0
        self.stop_signal: signal.Signals | None = None
        self.timed_out = False
        self.max_hours = 0.0
        self._began = time.monotonic()
        self._deadline = math.inf
        self._me = me()
        self._done = threading.Event()
        self._beating: threading.Thread | None = None
        self._lock = self._reserve = -1

    def __enter__(self) -> Lifecycle:
        """Take the folder; AlreadyRunning if a living process holds it (the kernel frees it of a dead one).

        OSError, naming the file, if it cannot be taken at all.
        """
        try:
            self._lock = os.open(self.rundir.lock, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise AlreadyRunning(f"{self.rundir.path}: another process works on this run") from None
        except OSError as error:
            error.filename = str(self.rundir.lock)
            raise
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        if self.record:
            self._keep_reserve()
            self._beat()
            self._beating = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)
            self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the folder back. A beat cut short by the end of the process would leave its temporary file."""
        self._done.set()
        if self._beating is not None:
            self._beating.join(LAST_BEAT_SECONDS)
        self._free_reserve()
        os.close(self._lock)

    def limit(self, hours: float) -> None:
        """From `hours` after the start of this process on, the run is to stop; 0: no limit."""
        self.max_hours = hours
        self._deadline = self._began + hours * 3600 if hours else math.inf

    def should_stop(self) -> bool:
        """True once a signal asked for it, or the time is up."""
        if self.stop_signal is None and not self.timed_out:
            self.timed_out = time.monotonic() >= self._deadline
        return self.stop_signal is not None or self.timed_out

    def began(self, resumed_from: int | None) -> None:
        """Note this start in attempts.jsonl. It stands apart from events.jsonl, so that the events of an
        interrupted and resumed run are those of an uninterrupted one.
        """
        line = json.dumps({"t": time.time(), **self._me, "resumed_from": resumed_from}) + "\n"
        with contextlib.suppress(OSError):
            file = Lines(self.rundir.attempts)
            file.append(line.encode())
            file.close()

    def end(self, status: str, code: int, reason: str = "", hint: str = "", **more: Any) -> int:
        """Say it in events.jsonl, write exit.json, and return the process's exit code.

        Where not even exit.json can be written, it is said on stderr, and whoever started the process writes it.
        """
        self._done.set()
        if not self.record:
            return code
        self._free_reserve()
        with contextlib.suppress(OSError):  # exit.json may still fit, and it is what counts
            log = EventLog(self.rundir.events, narrate.say)
            log.write("end", status=status, reason=reason, hint=hint)
            log.close()
        name = self.stop_signal.name if self.stop_signal is not None else None
        record = {"status": status, "code": code, "signal": name, "reason": reason, "hint": hint, "t": time.time()}
        try:
            self.rundir.write_json("exit.json", {**record, **more})
        except OSError as error:
            words = (f"{status}: {reason}", hint, f"exit.json cannot be written: {error.strerror}")
            with contextlib.suppress(OSError):
                print(*filter(None, words), sep="\n", file=sys.stderr, flush=True)
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stop_signal is None and not self.timed_out:  # the first cause counts: batch systems warn, then end it
            self.stop_signal = signal.Signals(number)

    def _keep_beating(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        # A full disk or memory must not end the run; the main thread will say what it meets itself.
        with contextlib.suppress(OSError, MemoryError):
            where = {"folder": str(self.rundir.path)}
            self.rundir.write_json("heartbeat.json", {**self._me, **where, "step": self.step, "t": time.time()})

    def _keep_reserve(self) -> None:
        """Take what `end` will need: room on the disk, and, since the file stays open, a descriptor."""
        with contextlib.suppress(OSError):
            self._reserve = self.rundir.keep_reserve()

    def _free_reserve(self) -> None:
        if self._reserve >= 0:
            with contextlib.suppress(OSError):
                os.close(self._reserve)
            self._reserve = -1
        if self.record:
            self.rundir.free_reserve()
