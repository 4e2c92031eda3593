"""The life of the process in its run folder: the lock, the heartbeat, signals, and how it ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from engine import narrate
from engine.events import EventLog
from engine.rundir import RunDir, me

HEARTBEAT_SECONDS = 5.0

# Signals that ask the run to checkpoint and go, and the status that each leads to.
STOP_SIGNALS = {
    signal.SIGTERM: "killed",
    signal.SIGINT: "killed",
    signal.SIGHUP: "killed",
    signal.SIGUSR1: "preempted",
}


class AlreadyRunning(Exception):
    """Another process works in this run folder."""


class Lifecycle:
    """Context of one process in one run folder. `record=False` (evaluating again) leaves the run's status alone."""

    def __init__(self, rundir: RunDir, *, record: bool = True) -> None:
        self.rundir = rundir
        self.stop_signal: signal.Signals | None = None
        self.step = 0
        self._record = record
        self._done = threading.Event()
        self._lock = -1

    def __enter__(self) -> Lifecycle:
        """Take the folder; AlreadyRunning if a living process holds it (the kernel frees it of a dead one)."""
        self._lock = os.open(self.rundir.lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise AlreadyRunning(f"{self.rundir.path}: another process works on this run") from None
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        if self._record:
            self._beat()
            threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the folder back."""
        self._done.set()
        os.close(self._lock)

    def should_stop(self) -> bool:
        """True once a signal asked for it."""
        return self.stop_signal is not None

    def began(self, resumed_from: int | None) -> None:
        """Note this start in attempts.jsonl. It stands apart from events.jsonl, so that the events of an
        interrupted and resumed run are those of an uninterrupted one.
        """
        line = json.dumps({"t": time.time(), **me(), "resumed_from": resumed_from}) + "\n"
        with self.rundir.attempts.open("a") as file:
            file.write(line)

    def end(self, status: str, code: int, reason: str = "", hint: str = "", **more: Any) -> int:
        """Say it in events.jsonl, write exit.json, and return the process's exit code."""
        self._done.set()
        if self._record:
            with contextlib.suppress(OSError):  # on a full disk exit.json may still fit, and it is what counts
                log = EventLog(self.rundir.events, narrate.say)
                log.write("end", status=status, reason=reason, hint=hint)
                log.close()
            name = self.stop_signal.name if self.stop_signal is not None else None
            record = {"status": status, "code": code, "signal": name, "reason": reason, "hint": hint, "t": time.time()}
            self.rundir.write_json("exit.json", {**record, **more})
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop_signal = signal.Signals(number)

    def _keep_beating(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            try:
                self._beat()
            except OSError:
                continue  # a full disk must not end the run; the main thread will say what it meets itself

    def _beat(self) -> None:
        self.rundir.write_json("heartbeat.json", {**me(), "step": self.step, "t": time.time()})
