"""Numbers and states of runs in words, the same on every screen of the command line."""

from __future__ import annotations

from collections.abc import Mapping

from engine.events import METRICS
from engine.options import readable
from trainctl.registry.progress import Progress

STYLES = {
    "queued": "dim", "starting": "cyan", "running": "cyan", "stopping": "yellow", "done": "green", "failed": "red",
    "diverged": "red", "oom": "red", "killed": "yellow", "preempted": "yellow", "timeout": "yellow", "lost": "red",
}  # fmt: skip
OUR_READING = "† our reading: what the authors leave open is our choice; `trainctl show` says what"
STAGES = {"data": "loading data", "pretrain": "pretraining M", "train": "training", "evaluate": "evaluating"}


def duration(seconds: float) -> str:
    """0:31, 12:05, 3:40:00."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def losses(latest: Mapping[str, float]) -> str:
    """`loss 0.612 = robust 0.512 + topology 0.100`, with what there is."""
    if "loss" not in latest:
        return f"loss {latest['loss_standard']:.3f}" if "loss_standard" in latest else ""
    added = ("robust", "topology", *readable("Term"))
    parts = [f"{name} {latest[f'loss_{name}']:.3f}" for name in added if f"loss_{name}" in latest]
    return f"loss {latest['loss']:.3f}" + (f" = {' + '.join(parts)}" if len(parts) > 1 else "")


def training(latest: Mapping[str, float]) -> str:
    """`train 97.1/61.2`: accuracy on natural and adversarial training images, in percent."""
    names = ("train_natural", "train_adversarial")
    shown = [f"{latest[name]:.1f}" for name in names if name in latest]
    if not shown and "train_standard" in latest:
        shown = [f"{latest['train_standard']:.1f}"]
    return f"train {'/'.join(shown)}" if shown else ""


def selection(latest: Mapping[str, float]) -> str:
    """`val 95.6/58.8`: natural and robust accuracy where `best` is chosen; `test` if that is the test set."""
    for split, short in (("validation", "val"), ("test", "test")):
        shown = [
            f"{latest[f'{split}_{name}']:.1f}" for name in ("natural", "pgd10", "pgd20") if f"{split}_{name}" in latest
        ]
        if shown:
            return f"{short} {'/'.join(shown)}"
    return ""


def speed(latest: Mapping[str, float]) -> str:
    """`1234 img/s`"""
    return f"{latest['images_per_second']:.0f} img/s" if "images_per_second" in latest else ""


def results(values: Mapping[str, float]) -> str:
    """`natural 95.0 · pgd20 53.1`, in the order of the tables."""
    return " · ".join(f"{name} {values[name]:.4g}" for name in METRICS if name in values)


def state(status: str, progress: Progress) -> str:
    """What a run is doing: its stage while it runs, else its status."""
    return STAGES.get(progress.stage, progress.stage or "running") if status == "running" else status
