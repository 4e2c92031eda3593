"""What a comparison consists of. The renderers turn it into text; `json` gives the shape of `compare --json`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trainctl.compare.statistics import Difference, Spread
from trainctl.registry.threats import Threat


@dataclass(frozen=True)
class Side:
    """The runs of one group, one a seed: a baseline, its +TRAIN twin, or runs without a partner."""

    label: str
    dataset: str
    model: str
    protocol: str
    rule: str
    """How the checkpoint was chosen."""
    runs: tuple[str, ...]
    seeds: tuple[int | None, ...]
    metrics: dict[str, Spread]
    threats: dict[str, list[Threat]]
    """The different threat models behind each metric; one, unless the runs were evaluated differently."""
    notes: tuple[str, ...] = ()
    paper: dict[str, Any] | None = None
    """The published row of runs without a partner; that of a pair is the pair's."""

    def json(self) -> dict[str, Any]:
        """SIDE of `compare --json`."""
        return {"runs": list(self.runs)} | {name: _spread(value) for name, value in self.metrics.items()}


@dataclass(frozen=True)
class Pair:
    """A baseline and one +TRAIN group. `differs` lists what else differs; `unequal` metrics whose threat models do."""

    label: str
    baseline: Side
    train: Side
    delta: dict[str, Difference]
    differs: tuple[dict[str, Any], ...]
    unequal: tuple[str, ...]
    paper: dict[str, Any] | None = None

    def json(self) -> dict[str, Any]:
        """An element of "pairs"."""
        return {
            "label": self.label,
            "baseline": self.baseline.json(),
            "train": self.train.json(),
            "delta": {name: vars(difference) for name, difference in self.delta.items()},
            "differs": list(self.differs),
            "unequal": list(self.unequal),
            "notes": list(dict.fromkeys(self.baseline.notes + self.train.notes)),
            "threats": _threats(self.baseline, self.train),
            "paper": self.paper,
        }


@dataclass(frozen=True)
class Comparison:
    """Everything that `trainctl compare` shows, for one checkpoint ("best" or "last")."""

    checkpoint: str
    metrics: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    alone: tuple[Side, ...] = field(default=())

    def json(self) -> dict[str, Any]:
        """The object of `compare --json`."""
        return {
            "checkpoint": self.checkpoint,
            "metrics": list(self.metrics),
            "pairs": [pair.json() for pair in self.pairs],
            "runs": [_run(side) for side in self.alone],
        }


def _run(side: Side) -> dict[str, Any]:
    """An element of "runs"."""
    notes = {"notes": list(side.notes), "threats": _threats(side), "paper": side.paper}
    return {"label": side.label, **side.json(), **notes}


def _spread(value: Spread) -> dict[str, Any]:
    return {**vars(value), "values": list(value.values)}


def _threats(*sides: Side) -> dict[str, Any]:
    """Threat model by metric, or the list of them where they differ."""
    found: dict[str, list[Threat]] = {}
    for side in sides:
        for metric, threats in side.threats.items():
            known = found.setdefault(metric, [])
            known += [threat for threat in threats if threat not in known]
    return {metric: threats[0] if len(threats) == 1 else threats for metric, threats in found.items()}
