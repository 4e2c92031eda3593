"""The rows above a plot: its title, its legend, and the values at the cursor."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style

from trainctl.tui.widgets import axes
from trainctl.tui.widgets.curves import Line, Plot, Seen, name

DIM, BOLD, PLAIN = Style(dim=True), Style(bold=True), Style()
Row = list[Segment]


def head(plot: Plot, lines: Sequence[Line], seen: Sequence[Seen], width: int, height: int) -> list[Row]:
    """Title, and the legend or the values at the cursor: beside the title if there is room, else below it."""
    title = [Segment(("▸ " if plot.focused else "") + plot.title, Style(bold=True, underline=plot.focused and None))]
    left_out = sum(each.left_out for each in seen)
    facts = [plot.y_unit, "log" * plot.log, f"{left_out} not above 0" if left_out else ""]
    title += [Segment(f" {fact}", DIM) for fact in facts if fact]
    items = _values(plot, seen) if plot.view.cursor is not None else _legend(lines)
    beside = _spaced(items)
    room = width - _length(title) - _length(beside)
    if room > 1 or height < 7:
        return [_cut([*title, Segment(" " * max(2, room)), *beside], width)]
    rows: list[Row] = [[]]
    for item in items:
        if rows[-1] and _length(rows[-1]) + _length(item) > width:
            rows.append([])
        rows[-1] += [*item, Segment("  ")]
    return [_cut(row, width) for row in [title, *rows[: max(1, height // 6)]]]


def _legend(lines: Sequence[Line]) -> list[Row]:
    """An entry a label, and one a side."""
    if len(lines) < 2:
        return []
    labels: dict[str, Line] = {}
    sides: dict[str, Line] = {}
    for line in lines:
        labels.setdefault(line.label, line)
        sides.setdefault(line.side, line)
    found = [[Segment(f"{_sample(line)} {label}", Style(color=line.color))] for label, line in labels.items() if label]
    both = [[Segment(f"{_sample(line)} {side}", DIM)] for side, line in sides.items() if side]
    return found + (both if len(both) > 1 else [])


def _sample(line: Line) -> str:
    return "╍" if line.dashed else "━"


def _values(plot: Plot, seen: Sequence[Seen]) -> list[Row]:
    """What each line is worth at the cursor; of the two sides of a pair in one entry, with their difference."""
    at = plot.view.cursor or 0.0
    labels = {each.line.label for each in seen}
    # Two sides under names of their own are a pair too.
    alone = len(seen) == 2 == len(labels) and seen[0].line.base != seen[1].line.base
    groups: dict[str, list[tuple[Line, float, str]]] = {}
    for each in seen:
        index = _nearest(each.points, at)
        if index is not None:
            value = each.points[index][1]
            average = f" ~{axes.number(each.smoothed[index][1])}" if plot.view.smoothing else ""
            group = groups.setdefault("" if alone else each.line.label, [])
            called = each.line.side if group and not alone else name(each.line)
            group.append((each.line, value, f"{_sample(each.line)} {called} {axes.number(value)}{average}"))
    return [[Segment(f"{plot.unit} {axes.x_label(at, plot.unit, 1.0)}", BOLD)], *map(_entry, groups.values())]


def _entry(group: Sequence[tuple[Line, float, str]]) -> Row:
    row = [Segment(f"{text} ", Style(color=line.color)) for line, _, text in group]
    base = [value for line, value, _ in group if line.base]
    other = [value for line, value, _ in group if not line.base]
    if len(base) == len(other) == 1:
        row.append(Segment(f"Δ {other[0] - base[0]:+.3g} ".replace("-", "−"), BOLD))
    return [*row[:-1], Segment(row[-1].text.rstrip(), row[-1].style)]


def _nearest(points: Sequence[tuple[float, float]], x: float) -> int | None:
    """Index of the point nearest to x; None if x lies before the first or behind the last."""
    if not points or not points[0][0] <= x <= points[-1][0]:
        return None
    at = bisect_left(points, (x,))
    return min((near for near in (at - 1, at) if 0 <= near < len(points)), key=lambda near: abs(points[near][0] - x))


def _spaced(items: Sequence[Row]) -> Row:
    return [segment for item in items for segment in (*item, Segment("  "))][:-1]


def _length(row: Sequence[Segment]) -> int:
    return sum(segment.cell_length for segment in row)


def _cut(row: Row, width: int) -> Row:
    if _length(row) <= width:
        return row
    cut = next(iter(Segment.split_and_crop_lines(row, width - 1, pad=False, include_new_lines=False)), [])
    return [*cut, Segment("…", DIM)]
