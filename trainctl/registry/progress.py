"""Where a run stands, folded from its events: the index keeps it, and who follows a run reckons it the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.events import METRICS
from trainctl.registry.plain import real, text

WINDOW = 3  # epochs whose mean length the rest is reckoned with
_KEYS = frozenset({"t", "event", "step", "epoch", "epochs"})


@dataclass
class Progress:
    """Where a run stands, as its events tell. Times are unix seconds, accuracies percent."""

    stage: str = ""
    epoch: int = 0  # epochs done in this stage
    epochs: int = 0
    step: int = 0  # the newest of this stage
    steps_per_epoch: int = 0
    into_epoch: float = 0.0  # share of the epoch at work, in [0, 1)
    latest: dict[str, float] = field(default_factory=dict)  # the newest value of each metric of steps and epochs
    evals: dict[str, dict[str, float]] = field(default_factory=dict)  # by checkpoint, by metric
    seconds: list[float] = field(default_factory=list)  # length of each of the last epochs, with the look for `best`
    t: float = 0.0  # of the newest event
    epoch_began: float = 0.0
    reason: str = ""

    def fold(self, event: Mapping[str, Any], values: Mapping[str, float] | None = None) -> None:
        """Take one event in; what it lacks or has of a wrong type is passed over.

        `values` are the event's `metrics`, if the caller knows them already.
        """
        t = real(event.get("t"))
        self.t = t if t is not None else self.t
        kind = event["event"]
        if kind == "step":
            self.latest.update(metrics(event) if values is None else values)
            self.step = _whole(event.get("step"))
            if self.steps_per_epoch:
                self.into_epoch = self.step % self.steps_per_epoch / self.steps_per_epoch
        elif kind == "epoch":
            self.latest.update(metrics(event) if values is None else values)
            self.step = _whole(event.get("step")) or self.step
            self.epoch, self.into_epoch, self.epoch_began = _whole(event.get("epoch")), 0.0, self.t
            self.epochs = _whole(event.get("epochs")) or self.epochs
            spent = sum(real(event.get(key)) or 0.0 for key in ("seconds", "selection_seconds"))
            self.seconds = [*self.seconds, spent][-WINDOW:]
        elif kind == "start":
            self.epochs = _whole(event.get("epochs"))
            self.steps_per_epoch = _whole(event.get("steps_per_epoch"))
        elif kind == "stage":
            self.stage, self.epoch, self.step = text(event.get("stage")), 0, 0
            self.into_epoch, self.epoch_began, self.seconds = 0.0, self.t, []
        elif kind == "eval":
            value = real(event.get("value"))
            if value is not None:
                self.evals.setdefault(text(event.get("checkpoint")), {})[text(event.get("metric"))] = value
        elif kind == "end":
            self.reason = text(event.get("reason"))

    @property
    def share(self) -> float:
        """Share of the epochs that is done, in [0, 1]."""
        return min(1.0, (self.epoch + self.into_epoch) / self.epochs) if self.epochs else 0.0

    def eta(self) -> float | None:
        """Seconds to the end of training, reckoned with the last epochs; None while nothing is known."""
        if self.stage not in ("train", "pretrain") or not self.epochs:
            return None
        if self.seconds:
            per_epoch = sum(self.seconds) / len(self.seconds)
        elif self.into_epoch and self.t > self.epoch_began:
            per_epoch = (self.t - self.epoch_began) / self.into_epoch
        else:
            return None
        return max(0.0, self.epochs - self.epoch - self.into_epoch) * per_epoch

    def results(self) -> dict[str, float]:
        """The numbers of checkpoint `best`, or else `last`, in the order of the tables."""
        found = self.evals.get("best") or self.evals.get("last") or {}
        return {name: found[name] for name in METRICS if name in found}


def metrics(event: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a step or epoch event."""
    values = {key: real(value) for key, value in event.items() if key not in _KEYS}
    return {text(key): value for key, value in values.items() if value is not None}


def _whole(value: Any) -> int:
    found = real(value)
    return int(found) if found is not None and abs(found) < 1e15 else 0
