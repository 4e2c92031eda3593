"""A line chart in braille: two by four dots a character, several lines, a labelled axis, a legend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text
from textual.widget import Widget

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bit of the dot in column x, row y of a character
AXIS = 7  # characters left of the plot
COLORS = ("#2E86D1", "#E07B00")  # plain on a dark and on a light ground


@dataclass(frozen=True)
class Line:
    """A curve as (x, y) points, x ascending. A dashed one is told apart without colour."""

    label: str
    points: tuple[tuple[float, float], ...]
    color: str = COLORS[0]
    dashed: bool = False


class Chart(Widget):
    """Draws what `show` was given, in whatever space there is."""

    DEFAULT_CSS = "Chart { height: 1fr; width: 1fr; }"

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._title, self._unit = "", "epoch"
        self._lines: tuple[Line, ...] = ()

    def show(self, title: str, lines: Sequence[Line], unit: str = "epoch") -> None:
        """Draw `lines`; `unit` is that of x. Nothing is sent to the terminal if nothing changed."""
        given = (title, tuple(lines), unit)
        if given != (self._title, self._lines, self._unit):
            self._title, self._lines, self._unit = given
            self.refresh()

    def render(self) -> Text:
        """The chart as text."""
        return draw(self._title, self._lines, self._unit, self.size.width, self.size.height)


def draw(title: str, lines: Sequence[Line], unit: str, width: int, height: int) -> Text:
    """The chart in `width` by `height` characters: title and legend above, x below, y at the left."""
    columns, rows = width - AXIS, height - 2
    if columns < 4 or rows < 1:
        return Text(title[:width])  # no room
    finite = [(line, [(x, y) for x, y in line.points if math.isfinite(x) and math.isfinite(y)]) for line in lines]
    finite = [(line, points) for line, points in finite if points]
    text = _head(title, [line for line, _ in finite], width)
    if not finite:
        return text.append("\n" * (1 + rows // 2) + " " * AXIS + "no values yet"[:columns], "dim")
    xs = [x for _, points in finite for x, _ in points]
    ys = [y for _, points in finite for _, y in points]
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    cells = _cells(finite, columns, rows, (left, right), _widened(low, high))
    for row in range(rows):
        share = row / max(1, rows - 1)
        label = (
            _number(high - share * (high - low)) if row in (0, rows // 2, rows - 1) and (low < high or not row) else ""
        )
        text.append(f"\n{label:>{AXIS - 1}}", "dim").append("┤" if label else "│", "dim")
        for column in range(columns):
            bits, color = cells.get((column, row), (0, ""))
            text.append(chr(0x2800 + bits) if bits else " ", color)
    first, last = _number(left), f"{unit} {_number(right)}"
    if len(first) + len(last) >= columns:
        last = _number(right)
    return text.append("\n" + " " * AXIS + (first + last.rjust(columns - len(first)))[:columns], "dim")


def _head(title: str, lines: Sequence[Line], width: int) -> Text:
    """Title and legend; the title is cut before the legend is."""
    legend = Text()
    for line in lines if len(lines) > 1 else ():
        legend.append(f" {'╍' if line.dashed else '━'}{line.label}", line.color)
    legend.truncate(width, overflow="ellipsis")
    head = Text(title, "bold")
    head.truncate(max(0, width - len(legend)), overflow="ellipsis", pad=True)
    return head + legend


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _cells(
    lines: Sequence[tuple[Line, list[tuple[float, float]]]],
    columns: int, rows: int, xs: tuple[float, float], ys: tuple[float, float],
) -> dict[tuple[int, int], tuple[int, str]]:  # fmt: skip
    """Bits and colour of each character that is not empty; the first line is drawn on top."""
    cells: dict[tuple[int, int], tuple[int, str]] = {}
    width, height = columns * 2 - 1, rows * 4 - 1
    for line, points in reversed(lines):
        dots = [
            (round((x - xs[0]) / ((xs[1] - xs[0]) or 1) * width), round((ys[1] - y) / (ys[1] - ys[0]) * height))
            for x, y in points
        ]
        for x, y in _stroke(_sampled(dots)):
            if line.dashed and (x + y) // 2 % 2 and len(dots) > 1:
                continue
            cell = (x // 2, y // 4)
            bits, _ = cells.get(cell, (0, ""))
            cells[cell] = (bits | DOTS[x % 2][y % 4], line.color)
    return cells


def _sampled(dots: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """At most four points a column: the first, the lowest, the highest and the last, so that no spike is lost."""
    column: list[tuple[int, int]] = []
    for dot in (*dots, (-1, 0)):
        if column and dot[0] != column[0][0]:
            yield from (column[0], min(column), max(column), column[-1])
            column = []
        column.append(dot)


def _stroke(dots: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """All dots on the way from each point to the next."""
    before: tuple[int, int] | None = None
    for x, y in dots:
        x0, y0 = before or (x, y)
        steps = max(abs(x - x0), abs(y - y0), 1)
        for step in range(steps + 1):
            yield x0 + round((x - x0) * step / steps), y0 + round((y - y0) * step / steps)
        before = (x, y)


def _number(value: float) -> str:
    """At most six characters."""
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    if 1e-3 <= abs(value) < 1e5:
        return f"{value:.{max(0, 3 - len(str(int(abs(value)))))}f}"
    return f"{value:.0e}"
