"""What runs measured epoch by epoch, and its summary over seeds. No matplotlib here."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.options import readable

Epochs = Mapping[int, float]  # epoch -> value
LOSSES = ("loss_robust", "loss_topology")
TRAINING = ("train_natural", "train_adversarial")
SELECTION = ("validation_", "test_")  # beginnings of the accuracies by which `best` is chosen


@dataclass(frozen=True)
class History:
    """One run: who it is, and metric -> epoch -> value (accuracies in percent)."""

    name: str
    group: str
    pair: str
    topology: bool
    seed: int
    threat: str
    values: Mapping[str, Epochs]


@dataclass(frozen=True)
class Band:
    """A metric over epochs: mean, minimum and maximum over the seeds that reached the epoch."""

    epochs: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    seeds: int


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone."""

    label: str
    pair: str
    topology: bool
    runs: tuple[History, ...]

    def band(self, metric: str) -> Band | None:
        """The metric of all its runs; None if none of them has it."""
        return summarize([run.values[metric] for run in self.runs if metric in run.values])


def summarize(curves: Sequence[Epochs]) -> Band | None:
    """Mean, minimum and maximum of `curves` epoch by epoch, without values that are no numbers."""
    finite = [{epoch: value for epoch, value in curve.items() if math.isfinite(value)} for curve in curves]
    finite = [curve for curve in finite if curve]
    epochs = sorted({epoch for curve in finite for epoch in curve})
    if not epochs:
        return None
    at = [[curve[epoch] for curve in finite if epoch in curve] for epoch in epochs]
    return Band(epochs, [math.fsum(v) / len(v) for v in at], [min(v) for v in at], [max(v) for v in at], len(finite))


def groups(runs: Iterable[History]) -> list[Group]:
    """Runs by `group`, baselines before their twins, pairs in the order in which they come."""
    members: dict[str, list[History]] = {}
    for run in runs:
        members.setdefault(run.group, []).append(run)
    pairs = list(dict.fromkeys(run.pair for of_group in members.values() for run in of_group))
    ordered = sorted(members.values(), key=lambda m: (pairs.index(m[0].pair), m[0].topology))
    names = [_without_seed(m[0]) for m in ordered]
    threats = {m[0].threat for m in ordered}
    return [
        Group(
            # The group's own name ends in a hash, which tells apart what the run names do not.
            (name if names.count(name) == 1 else f"{name} [{m[0].group[-8:]}]")
            + (f" ({m[0].threat})" if len(threats) > 1 else ""),
            m[0].pair,
            m[0].topology,
            tuple(m),
        )
        for name, m in zip(names, ordered, strict=True)
    ]


def _without_seed(run: History) -> str:
    return run.name.removesuffix(f"-s{run.seed}")


def difference(baseline: Group, train: Group, metric: str) -> Band | None:
    """TRAIN minus baseline, run against run of the same seed; None without a common seed and epoch."""
    ours = {run.seed: run.values[metric] for run in train.runs if metric in run.values}
    theirs = {run.seed: run.values[metric] for run in baseline.runs if metric in run.values}
    common = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    return summarize([{epoch: a[epoch] - b[epoch] for epoch in a if epoch in b} for a, b in common])


def twins(of: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Every (baseline, +TRAIN) among `of`."""
    return [(b, t) for b in of for t in of if b.pair == t.pair and not b.topology and t.topology]


def default_metrics(known: Collection[str]) -> list[str]:
    """The metrics worth a panel among those that are `known`: losses, training and selection accuracies."""
    selection = sorted(
        (m for m in known if is_selection(m)), key=lambda m: (m.partition("_")[0] == "test", "natural" not in m, m)
    )
    losses = (*LOSSES, *(f"loss_{term}" for term in readable("Term")))
    return [metric for metric in (*losses, *TRAINING) if metric in known] + selection


def is_selection(metric: str) -> bool:
    """True for an accuracy by which `best` is chosen."""
    return metric.startswith(SELECTION)
