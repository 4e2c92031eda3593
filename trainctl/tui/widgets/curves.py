"""What a chart is told to draw, and what of it is in view."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from trainctl.tui.widgets.smoothing import smooth


@dataclass(frozen=True)
class Line:
    """A curve as (x, y) points, x ascending. A dashed one is told apart without colour.

    `low` and `high`, if given, hold a y a point: between them lies what the point stands for, as all values of a
    bucket or of several seeds. Lines of one `label` and two `side`s are the same measured on both sides of a pair;
    the read-out subtracts the one that is `base`. Without a `color` it has the theme's next.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    color: str = ""
    dashed: bool = False
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    side: str = ""
    base: bool = False


@dataclass(frozen=True)
class View:
    """What of a chart is looked at, and how: x from `left` to `right` (None: as far as there are points)."""

    left: float | None = None
    right: float | None = None
    cursor: float | None = None
    smoothing: float = 0.0
    """Half-life of the average, as a share of the x range shown; 0 is none."""


@dataclass(frozen=True)
class Plot:
    """All that is drawn. `unit` is that of x (step, epoch, time); `y_unit` stands behind the title; `nothing` is said
    where there is nothing to draw.
    """

    title: str
    lines: tuple[Line, ...]
    unit: str = "epoch"
    y_unit: str = ""
    view: View = View()
    log: bool = False
    focused: bool = False
    nothing: str = "no values yet"


@dataclass(frozen=True)
class Seen:
    """A line's points that are in view, with a neighbour at either side so that it runs out of the frame."""

    line: Line
    points: tuple[tuple[float, float], ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    inside: slice
    """Those of `points` that lie in view."""
    smoothed: tuple[tuple[float, float], ...]
    left_out: int
    """Points in view that a log scale cannot show."""


def in_view(lines: Iterable[Line], plot: Plot) -> list[Seen]:
    """The lines as `plot` shows them; those without a point in or beside the view are left out."""
    view, found = plot.view, []
    ends = [x for line in lines for x, _ in (line.points[:1] + line.points[-1:]) if math.isfinite(x)]
    if not ends:
        return []
    left = min(ends) if view.left is None else view.left
    right = max(ends) if view.right is None else view.right
    for line in lines:
        begin = max(0, bisect_left(line.points, (left,)) - 1)
        end = bisect_right(line.points, (right, math.inf)) + 1
        kept, left_out = [], 0
        for at in range(begin, min(end, len(line.points))):
            x, y = line.points[at]
            if not (math.isfinite(x) and math.isfinite(y)):
                continue
            if plot.log and y <= 0:
                left_out += left <= x <= right
            else:
                low, high = (line.low[at], line.high[at]) if line.low and line.high else (y, y)
                kept.append((x, y, y if plot.log and low <= 0 else low, high))
        points = tuple((x, y) for x, y, _, _ in kept)
        inside = slice(bisect_left(points, (left,)), bisect_right(points, (right, math.inf)))
        smoothed = smooth(points, plot.view.smoothing * (right - left))
        if points or left_out:
            lows, highs = tuple(each[2] for each in kept), tuple(each[3] for each in kept)
            found.append(Seen(line, points, lows, highs, inside, smoothed, left_out))
    return found


def name(line: Line) -> str:
    """How a line is called among others: by its label, on the dashed side by both."""
    return f"{line.label} {line.side}".strip() if line.dashed or not line.label else line.label
