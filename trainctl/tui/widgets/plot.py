"""A line chart as characters: pure, from what is to be drawn to styled rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style

from trainctl.tui.widgets import axes
from trainctl.tui.widgets.braille import Canvas
from trainctl.tui.widgets.curves import Line, Plot, Seen, in_view, name
from trainctl.tui.widgets.legend import DIM, PLAIN, Row, head

AXIS = 7  # characters left of the plot
LABELS = 13  # most characters right of it, for the names of the lines


@dataclass(frozen=True)
class Frame:
    """Where x and y lie: the ranges, and the characters of the plot. With a log scale y are logarithms."""

    left: float
    right: float
    low: float
    high: float
    columns: int
    rows: int
    log: bool = False

    def column(self, x: float) -> int:
        """Column of dots of x."""
        width = self.columns * 2 - 1
        at = (x - self.left) / ((self.right - self.left) or 1) * width
        return round(min(max(at, -1e6), 1e6))

    def row(self, y: float) -> int:
        """Row of dots of y."""
        if self.log:
            y = math.log10(y) if y > 0 else -math.inf
        at = (self.high - y) / (self.high - self.low) * (self.rows * 4 - 1)
        return round(min(max(at, -1e6), 1e6))

    def x(self, character: int) -> float:
        """x in the middle of a character."""
        return self.left + (self.right - self.left) * (2 * character + 0.5) / max(1, self.columns * 2 - 1)


def drawn(plot: Plot, width: int, height: int, colors: Sequence[str]) -> tuple[list[Row], Frame | None]:
    """The rows of a chart in `width` by `height` characters; Frame is None if nothing could be drawn.

    Title and legend (at the cursor: the values) above, y at the left, x below, each line's name at its end.
    """
    lines = [_colored(line, colors[number % len(colors)]) for number, line in enumerate(plot.lines)]
    seen = in_view(lines, plot)
    if width < AXIS + 4 or height < 3:
        return [[Segment(set_cell_size(plot.title, width), Style(bold=True))]][:height], None
    above = head(plot, lines, seen, width, height)
    base = int(height - len(above) >= 12)
    rows = height - len(above) - 1 - base
    frame = _frame(plot, seen, width, rows)
    if frame is None:
        empty = [Segment(" " * AXIS + set_cell_size(plot.nothing, width - AXIS), DIM)]
        return [*above, *([[]] * (rows // 2)), empty], None
    cells = _cells(plot, seen, frame)
    names = _names(seen, frame, width - AXIS - frame.columns)
    body = [[*left, *row, *right] for left, row, right in zip(_y_axis(plot, frame), cells, names, strict=True)]
    return [*above, *body, *_x_axis(plot, frame, line=bool(base))], frame


def _colored(line: Line, color: str) -> Line:
    return line if line.color else Line(**{**vars(line), "color": color})


def _frame(plot: Plot, seen: Sequence[Seen], width: int, rows: int) -> Frame | None:
    xs = [x for each in seen for x, _ in each.points[each.inside]]
    ys = [y for each in seen for y in (*each.low[each.inside], *each.high[each.inside]) if math.isfinite(y)]
    if not xs or not ys or rows < 1:
        return None
    low, high = min(ys), max(ys)
    if plot.log:
        low, high = math.log10(low), math.log10(high)
    if not low < high:
        room = abs(low) * 0.1 or 0.5
        low, high = low - room, high + room
    longest = max(cell_len(name(each.line)) for each in seen)
    named = 1 + min(longest, LABELS - 1) if len(seen) > 1 and width >= 50 else 0
    left = min(xs) if plot.view.left is None else plot.view.left
    right = max(xs) if plot.view.right is None else plot.view.right
    return Frame(left, right, low, high, width - AXIS - named, rows, plot.log)


# --- the plot -----------------------------------------------------------------------------------------------


def _cells(plot: Plot, seen: Sequence[Seen], frame: Frame) -> list[Row]:
    """The plot's characters. What is drawn later lies on top: the first line last."""
    bits = [[0] * frame.columns for _ in range(frame.rows)]
    styles: list[list[Style]] = [[PLAIN] * frame.columns for _ in range(frame.rows)]
    for canvas, style in _layers(plot, seen, frame):
        for column, row, dots in canvas.cells():
            bits[row][column] |= dots
            styles[row][column] = style
    return [_joined(row, style) for row, style in zip(bits, styles, strict=True)]


def _layers(plot: Plot, seen: Sequence[Seen], frame: Frame) -> Iterable[tuple[Canvas, Style]]:
    def canvas() -> Canvas:
        return Canvas(frame.columns, frame.rows)

    if plot.view.cursor is not None and frame.left <= plot.view.cursor <= frame.right:
        layer = canvas()
        layer.span(frame.column(plot.view.cursor), 0, layer.height)
        yield layer, DIM
    for each in reversed(seen):
        faint = Style(color=each.line.color, dim=True)
        columns = [frame.column(x) for x, _ in each.points]
        if each.line.low:
            layer = canvas()
            spread = zip(columns, map(frame.row, each.high), map(frame.row, each.low), strict=True)
            layer.shade(spread)
            yield layer, faint
        if plot.view.smoothing:
            yield _stroke(each.line, columns, each.points, frame), faint
    for each in reversed(seen):
        columns = [frame.column(x) for x, _ in each.smoothed]
        yield _stroke(each.line, columns, each.smoothed, frame), Style(color=each.line.color)


def _stroke(line: Line, columns: Sequence[int], points: Sequence[tuple[float, float]], frame: Frame) -> Canvas:
    layer = Canvas(frame.columns, frame.rows)
    layer.line([(column, frame.row(y)) for column, (_, y) in zip(columns, points, strict=True)])
    if line.dashed and len(points) > 1:
        layer.dash()
    return layer


def _joined(bits: Sequence[int], styles: Sequence[Style]) -> Row:
    """Characters of one row, neighbours of one style in one segment."""
    row: Row = []
    for style, cells in itertools.groupby(zip(bits, styles, strict=True), lambda cell: cell[1] if cell[0] else PLAIN):
        row.append(Segment("".join(chr(0x2800 + dots) if dots else " " for dots, _ in cells), style))
    return row


def _names(seen: Sequence[Seen], frame: Frame, room: int) -> list[Row]:
    """The lines' names, each as near to where its line ends as the others let it, from above to below as the lines."""
    ends = [(each.smoothed[each.inside][-1:], each.line) for each in seen if room]
    found = sorted([(points[0][1], line) for points, line in ends if points][: frame.rows], key=lambda end: -end[0])
    rows: list[Row] = [[] for _ in range(frame.rows)]
    for row, (_, line) in zip(_apart([frame.row(y) / 4 for y, _ in found], frame.rows), found, strict=True):
        text = name(line)
        text = text if cell_len(text) < room else set_cell_size(text, room - 2) + "…"
        rows[row] = [Segment(" " + text, Style(color=line.color, dim=line.dashed))]
    return rows


def _apart(wanted: Sequence[float], rows: int) -> list[int]:
    """A row of its own for each of `wanted`, which ascend, in the same order and with the least squares of the ways."""
    # Without the rows that those before need anyway, neighbours may share one: those that would cross share their mean.
    blocks: list[tuple[float, int]] = []  # sums, and of how many
    for number, at in enumerate(wanted):
        total, size = at - number, 1
        while blocks and blocks[-1][0] * size >= total * blocks[-1][1]:
            before, more = blocks.pop()
            total, size = total + before, size + more
        blocks.append((total, size))
    shared = [min(max(int(total / size), 0), rows - len(wanted)) for total, size in blocks for _ in range(size)]
    return [row + number for number, row in enumerate(shared)]


# --- the axes -----------------------------------------------------------------------------------------------


def _y_axis(plot: Plot, frame: Frame) -> list[Row]:
    most = min(8, max(3, frame.rows // 2))
    found = (axes.log_ticks if frame.log else axes.ticks)(frame.low, frame.high, most)
    step = 0.0 if frame.log else found[1] - found[0] if len(found) > 1 else frame.high - frame.low
    labels: dict[int, str] = {}
    for tick in found:
        row = round((frame.high - tick) / (frame.high - frame.low) * (frame.rows * 4 - 1)) // 4
        labels.setdefault(row, axes.label(10**tick if frame.log else tick, step))
    return [
        [Segment(f"{labels.get(row, ''):>{AXIS - 1}}{'┤' if row in labels else '│'}", DIM)]
        for row in range(frame.rows)
    ]  # fmt: skip


def _x_axis(plot: Plot, frame: Frame, *, line: bool) -> list[Row]:
    find = axes.time_ticks if plot.unit == "time" else axes.ticks
    found = find(frame.left, frame.right, max(1, frame.columns // 9))
    if plot.unit != "time":
        found = [tick for tick in found if tick == round(tick)] or found
    step = found[1] - found[0] if len(found) > 1 else 0.0
    text, rule, free = [" "] * frame.columns, ["─"] * frame.columns, 0
    for tick in found:
        at, label = min(frame.column(tick) // 2, frame.columns - 1), axes.x_label(tick, plot.unit, step)
        start = min(max(0, at - len(label) // 2), frame.columns - len(label))
        if start >= free:
            text[start : start + len(label)] = label
            rule[at], free = "┴", start + len(label) + 1
    unit = set_cell_size(plot.unit[: AXIS - 1].rjust(AXIS - 1), AXIS)
    rows = [[Segment(unit + "".join(text), DIM)]]
    return [[Segment(" " * (AXIS - 1) + "└" + "".join(rule), DIM)], *rows] if line else rows
