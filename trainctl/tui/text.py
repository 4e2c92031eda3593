"""How runs are written on the screens. What comes from a file is plain text, never markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.text import Text

from trainctl.cli.common import printable
from trainctl.registry.query import RunRow
from trainctl.tui.themes import DARK, STATUS

GLYPHS = {
    "queued": "○", "starting": "◔", "running": "●", "stopping": "◑", "done": "✔", "failed": "✘", "diverged": "↯",
    "oom": "✘", "killed": "■", "preempted": "■", "timeout": "■", "lost": "?",
}  # fmt: skip
KINDS = {
    "queued": "idle", "starting": "active", "running": "active", "stopping": "warn", "done": "good", "failed": "bad",
    "diverged": "bad", "oom": "bad", "killed": "warn", "preempted": "warn", "timeout": "warn", "lost": "bad",
}  # fmt: skip
ROBUST = ("aa", "pgd20", "cw20", "pgd10")  # AutoAttack where it was measured, else PGD
LEVELS = "▁▂▃▄▅▆▇"
AGES = ((90, 1, "s"), (90, 60, "min"), (36, 3600, "h"), (60, 86400, "d"), (24, 2629800, "mo"))  # most, seconds, unit


def color(kind: str, theme: str = "") -> str:
    """The colour of `kind` (good, active, warn, bad, idle) under `theme`; of one that is not ours, the dark one's."""
    return STATUS.get(theme, STATUS[DARK.name]).get(kind, "")


def status(run: RunRow, theme: str = "") -> Text:
    """Glyph and word, coloured."""
    return Text(f"{GLYPHS.get(run.status, ' ')} {run.status}", color(KINDS.get(run.status, ""), theme))


def one_line(text: str) -> str:
    """`text` from a file, on one line and with control characters written out."""
    return " ".join(printable(text).split())


def method(run: RunRow, *, short: bool = False) -> str:
    """The method, and whether TRAIN is added: `trades +TRAIN`, or `trades+T`; † behind what is our reading."""
    return with_train(run.method, run.topology, short=short) + "†" * bool(run.our_reading)


def with_train(name: str, topology: bool, *, short: bool = False) -> str:
    """The name of a method, and whether TRAIN is added."""
    return name + (("+T" if short else " +TRAIN") if topology else "")


def accuracies(metrics: Mapping[str, float | None]) -> tuple[str, str]:
    """Natural and robust accuracy with the name of the attack. While a run trains, those of the selection split.

    These end in `v` if the split is the validation set, in `t` if it is the test set.
    """
    for prefix, mark in (("", ""), ("validation_", "v"), ("test_", "t")):
        natural = metrics.get(f"{prefix}natural")
        robust = robust_of(metrics, prefix)
        if natural is not None or robust:
            shown = f"{metrics[prefix + robust]:.1f}{mark} {robust}" if robust else ""
            return (f"{natural:.1f}{mark}" if natural is not None else ""), shown
    return "", ""


def robust_of(metrics: Mapping[str, object], prefix: str = "") -> str:
    """The strongest attack that was measured, or ""."""
    return next((name for name in ROBUST if metrics.get(prefix + name) is not None), "")


def spread(mean: float, std: float | None) -> str:
    """`95.0±0.3`; without a standard deviation the mean alone."""
    return f"{mean:.1f}" if std is None else f"{mean:.1f}±{std:.1f}"


def bar(share: float, width: int) -> str:
    """`▰▰▰▱▱`: empty only at 0 and full only at 1, so that neither the first step nor the last is hidden."""
    full = round(share * width)
    if 0.0 < share < 1.0:
        full = min(max(full, 1), width - 1)
    return "▰" * full + "▱" * (width - full)


def sparkline(values: Sequence[float]) -> str:
    """A character a value, from the lowest to the highest of them; all alike stand in the middle."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    if low == high:
        return LEVELS[len(LEVELS) // 2] * len(values)
    return "".join(LEVELS[round((value - low) / (high - low) * (len(LEVELS) - 1))] for value in values)


def short_duration(seconds: float) -> str:
    """At most six characters: 0:31, 12:05, 3h40, 2d05h, 400d."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, left = divmod(hours, 24)
    if days:
        return f"{days}d{left:02}h" if days < 100 else f"{min(days, 99999)}d"
    return f"{hours}h{minutes:02}" if hours else f"{minutes}:{rest:02}"


def age(seconds: float) -> str:
    """How long ago: 40 s, 12 min, 3 h, 5 d, 4 mo, 2 y."""
    seconds = max(0.0, seconds)
    if not math.isfinite(seconds):
        return "?"
    for most, unit, word in AGES:
        if seconds < most * unit:
            return f"{int(seconds / unit)} {word}"
    return f"{int(seconds / 31557600)} y"


def file_size(size: float) -> str:
    """1.2 GB, in powers of 1000 as file managers do."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
