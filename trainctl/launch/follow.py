"""Following runs while they work: new events by byte offset, folded into where each run stands.

No index and no process is asked, only the run folder, so that many may follow the same run.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.events import METRICS, number, read
from engine.rundir import FINAL, RunDir

CHUNK = 1 << 22  # bytes read at once: a long log is folded in pieces
PATIENCE = 3.0  # seconds
WINDOW = 3  # epochs whose mean length the rest is reckoned with


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
            with open(self.path, "rb") as file:
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


@dataclass
class Progress:
    """Where a run stands, as its events tell. Times are unix seconds, accuracies percent."""

    stage: str = ""
    epoch: int = 0  # epochs done in this stage
    epochs: int = 0
    steps_per_epoch: int = 0
    into_epoch: float = 0.0  # share of the epoch at work, in [0, 1)
    latest: dict[str, float] = field(default_factory=dict)  # the newest value of each metric of steps and epochs
    evals: dict[str, dict[str, float]] = field(default_factory=dict)  # by checkpoint, by metric
    seconds: list[float] = field(default_factory=list)  # length of each epoch
    t: float = 0.0  # of the newest event
    epoch_began: float = 0.0
    reason: str = ""

    def fold(self, event: dict[str, Any]) -> None:
        """Take one event in; what it lacks or has of a wrong type is passed over."""
        t = number(event.get("t"))
        self.t = t if t is not None else self.t
        kind = event["event"]
        if kind == "start":
            self.epochs = _whole(event.get("epochs"))
            self.steps_per_epoch = _whole(event.get("steps_per_epoch"))
        elif kind == "stage":
            self.stage, self.epoch, self.into_epoch, self.epoch_began = str(event.get("stage", "")), 0, 0.0, self.t
            self.seconds.clear()
        elif kind == "step":
            self._measure(event)
            if self.steps_per_epoch:
                self.into_epoch = _whole(event.get("step")) % self.steps_per_epoch / self.steps_per_epoch
        elif kind == "epoch":
            self._measure(event)
            self.epoch, self.into_epoch, self.epoch_began = _whole(event.get("epoch")), 0.0, self.t
            self.epochs = _whole(event.get("epochs")) or self.epochs
            self.seconds.append(number(event.get("seconds")) or 0.0)
        elif kind == "eval":
            value = number(event.get("value"))
            if value is not None:
                self.evals.setdefault(str(event.get("checkpoint", "")), {})[str(event.get("metric", ""))] = value
        elif kind == "end":
            self.reason = str(event.get("reason") or "")

    def _measure(self, event: dict[str, Any]) -> None:
        for name, value in event.items():
            if name not in ("t", "event", "step", "epoch", "epochs") and (found := number(value)) is not None:
                self.latest[name] = found

    @property
    def share(self) -> float:
        """Share of the epochs that is done, in [0, 1]."""
        return min(1.0, (self.epoch + self.into_epoch) / self.epochs) if self.epochs else 0.0

    def eta(self) -> float | None:
        """Seconds to the end of training, reckoned with the last epochs; None while nothing is known."""
        if self.stage not in ("train", "pretrain") or not self.epochs:
            return None
        recent = self.seconds[-WINDOW:]
        if recent:
            per_epoch = sum(recent) / len(recent)
        elif self.into_epoch and self.t > self.epoch_began:
            per_epoch = (self.t - self.epoch_began) / self.into_epoch
        else:
            return None
        return max(0.0, self.epochs - self.epoch - self.into_epoch) * per_epoch

    def results(self) -> dict[str, float]:
        """The numbers of checkpoint `best`, or else `last`, in the order of the tables."""
        found = self.evals.get("best") or self.evals.get("last") or {}
        return {name: found[name] for name in METRICS if name in found}


class Follower:
    """One run, followed."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self.name = str(run.json("run.json").get("name") or run.id)
        self.progress = Progress()
        self.status = "queued"
        self._tail = Tail(run.events)
        self._told = 0.0
        self._lost_since = 0.0

    @property
    def ended(self) -> bool:
        """True if the run came to an end. If its engine vanished, the scheduler is given a moment to write down how."""
        if self.status == "lost" and self.run.path.exists():
            return time.monotonic() - self._lost_since > PATIENCE
        return self.status in FINAL

    def poll(self) -> list[dict[str, Any]]:
        """Look again; returns the events that were not given before.

        A resumed engine cuts its log at the checkpoint and takes those steps again: they are not given twice.
        """
        if not self.run.path.exists():
            self.status = "lost"
            return []
        # The status first: events written before the end are then sure to be read below.
        before, self.status = self.status, self.run.status()
        if self.status == "lost" != before:
            self._lost_since = time.monotonic()
        again, events = self._tail.read()
        if again:
            self.progress = Progress()
        for event in events:
            self.progress.fold(event)
        fresh = [event for event in events if not again or (number(event.get("t")) or 0.0) > self._told]
        self._told = max(self._told, self.progress.t)
        return fresh

    def reason(self) -> str:
        """Why the run ended as it did, with what to do if that is known."""
        ended = self.run.json("exit.json")
        return "; ".join(str(ended[key]) for key in ("reason", "hint") if ended.get(key))


def _whole(value: Any) -> int:
    found = number(value)
    return int(found) if found is not None and abs(found) < 1e15 else 0
