"""Gauges: a name, a bar, a number and a sparkline of the last minutes, a line each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from trainctl.cli.common import printable
from trainctl.launch.gpus import Gpu
from trainctl.launch.machine import Machine
from trainctl.tui.feed.machine import Values
from trainctl.tui.text import bar

BLOCKS = " ▁▂▃▄▅▆▇█"
LABEL = 8  # characters
BAR = 10
LEAST = 16  # characters of a sparkline; with less room there is none
GIB = 1 << 30


@dataclass(frozen=True)
class Gauge:
    """`share` in [0, 1] fills the bar, None leaves it out. The sparkline of `values` ends at `top`, its full height."""

    label: str
    share: float | None
    text: str
    values: Values = ()
    top: float = 1.0


def machine(found: Machine, recent: dict[str, Values]) -> list[Gauge]:
    """Gauges of the cores, the memory and each GPU."""
    busy = "–" if found.busy is None else f"{found.busy:.1f}"
    load = " ".join(f"{each:.2f}" for each in found.load)
    gauges = [
        Gauge(
            "cores", (found.busy or 0.0) / found.cores, f"{busy} of {found.cores} busy · load {load}",
            recent.get("cpu", ()), found.cores,
        ),
        Gauge(
            "memory", _share(found.memory_used, found.memory_total), _memory(found), recent.get("memory", ()),
            found.memory_total,
        ),
    ]  # fmt: skip
    return gauges + [gpu(each, recent) for each in found.gpus.found]


def gpu(found: Gpu, recent: dict[str, Values]) -> Gauge:
    """One line of a GPU, with what it tells."""
    label = f"GPU {found.number}"
    parts = [f"{found.load:.0f} %"] if found.load is not None else []
    if found.memory_total:
        parts.append(f"{(found.memory_used or 0) / GIB:.1f}/{found.memory_total / GIB:.0f} GiB")
    parts += [f"{found.temperature} °C"] if found.temperature is not None else []
    parts += [f"{found.power:.0f} W"] if found.power is not None else []
    parts += [f"{len(found.processes)} proc."] if found.processes else []
    parts += [part for part in (found.remark, printable(found.name)) if part]
    share = found.load / 100 if found.load is not None else None
    if share is None and found.memory_total:
        share = _share(found.memory_used or 0, found.memory_total)
    return Gauge(label, share, " · ".join(parts), recent.get(f"gpu {found.number}", ()), 100.0)


def disk(found: Machine) -> str:
    """`58.8 GiB free of 252 GiB`, or what is wrong."""
    if not found.disk_total:
        return "the disk of the home cannot be asked"
    return f"{found.disk_free / GIB:.1f} GiB free of {found.disk_total / GIB:.0f} GiB"


def size(count: int) -> str:
    """Bytes in four characters and their unit: 340 MiB, 1.2 GiB."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / (1 << 20):.0f} MiB"


def draw(
    gauges: Sequence[Gauge], width: int, colors: Sequence[str], height: int = 1, beside: Sequence[Gauge] = ()
) -> Text:
    """The gauges below one another, `height` lines each, aligned with each other and with those `beside` them.

    `colors` are of the sparkline and of the bar.
    """
    left = LABEL + BAR + 2
    longest = max((len(gauge.text) for gauge in (*gauges, *beside)), default=0)
    words = min(longest, max(width - left - LEAST - 1, 24)) if width - left - 24 > LEAST else width - left
    room = width - left - words - 1
    text = Text(no_wrap=True, overflow="ellipsis")
    for gauge in gauges:
        seen = room >= LEAST and any(value is not None for value in gauge.values)
        lines = graph(gauge.values, room, height, gauge.top) if seen else [""]
        for number, line in enumerate(lines):
            last = number == len(lines) - 1  # the sparkline stands on the line of its number
            text.append("\n" if text else "")
            text.append(gauge.label.ljust(LABEL) if last else " " * LABEL)
            filled = bar(min(1.0, gauge.share), BAR) if last and gauge.share is not None else " " * BAR
            text.append(filled, colors[1]).append("  ")
            said = Text(gauge.text if last else "", no_wrap=True)
            said.truncate(words, overflow="ellipsis", pad=True)
            text.append_text(said).append(" ").append(line, colors[0])
    return text


def graph(values: Values, width: int, height: int, top: float) -> list[str]:
    """`values` as columns of `height` lines, the newest at the right; empty where nobody looked.

    A column is the mean of the values that fall into it. On one line it is never full, so that lines stay apart.
    """
    columns: list[float | None] = []
    for column in range(width):
        start = column * len(values) // width
        part = values[start : max(start + 1, (column + 1) * len(values) // width)]
        known = [value for value in part if value is not None]
        columns.append(sum(known) / len(known) if known else None)
    lines = []
    for row in reversed(range(height)):
        line = ""
        for value in columns:
            # The lowest line is never empty where something was seen, so that nothing at all looks otherwise.
            eighths = 0 if value is None else max(1, round(value / (top or 1.0) * 8 * height))
            line += BLOCKS[min(8 if height > 1 else 7, max(0, eighths - 8 * row))]
        lines.append(line)
    return lines


def _memory(found: Machine) -> str:
    swap = f" · swap {found.swap_used / GIB:.1f} of {found.swap_total / GIB:.1f}" if found.swap_total else ""
    return f"{found.memory_used / GIB:.1f} of {found.memory_total / GIB:.1f} GiB{swap}"


def _share(used: int, total: int) -> float:
    return used / total if total else 0.0
