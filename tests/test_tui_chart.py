"""The braille line chart: what is drawn, and how it is looked at."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest
from oracles.smoothing import average
from textual.app import App, ComposeResult

from trainctl.tui.widgets import axes
from trainctl.tui.widgets.braille import Canvas
from trainctl.tui.widgets.chart import Chart, Line, View
from trainctl.tui.widgets.charts import Charts, Drawing
from trainctl.tui.widgets.curves import Plot
from trainctl.tui.widgets.plot import AXIS, drawn
from trainctl.tui.widgets.smoothing import smooth

BLANK = "\u2800"
COLORS = ("#ff0000", "#00ff00")
Points = tuple[tuple[float, float], ...]


def rows(*lines: Line, width: int = 40, height: int = 10, title: str = "t", **plot: Any) -> list[str]:
    found, _ = drawn(Plot(title, lines, **plot), width, height, COLORS)
    return ["".join(segment.text for segment in row) for row in found]


def plot_of(*lines: Line, width: int = 40, height: int = 10, **plot: Any) -> list[str]:
    return [row[AXIS:] for row in rows(*lines, width=width, height=height, **plot)[1:-1]]


def dots(plot: list[str]) -> int:
    return sum((ord(c) - ord(BLANK)).bit_count() for row in plot for c in row if BLANK <= c <= "\u28ff")


def curve(*ys: float) -> Points:
    return tuple((float(x), y) for x, y in enumerate(ys, 1))


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right_corner() -> None:
    plot = plot_of(Line("a", ((0.0, 0.0), (1.0, 1.0))))
    assert ord(plot[-1][0]) & 0x40
    assert ord(plot[0][-1]) & 0x08
    assert plot[0][0] == plot[-1][-1] == " "
    assert all(row.strip() for row in plot)


def test_a_steep_line_has_no_holes_and_dots_stand_where_they_should() -> None:
    canvas = Canvas(2, 2)
    canvas.line([(0, 0), (3, 7)])
    cells = {(column, row): bits for column, row, bits in canvas.cells()}
    lit = {
        (2 * column + x, 4 * row + y)
        for (column, row), bits in cells.items()
        for x, table in enumerate(((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80)))
        for y, bit in enumerate(table)
        if bits & bit
    }
    assert {(0, 0), (3, 7)} <= lit
    assert {y for _, y in lit} == set(range(8))


@pytest.mark.parametrize("points", [100, 10_000])
def test_no_spike_is_lost(points: int) -> None:
    spike = tuple((float(x), 1000.0 if x == points // 3 else 0.0) for x in range(points))
    assert all(row.strip() for row in plot_of(Line("a", spike)))
    assert all(row.strip() for row in plot_of(Line("a", spike, dashed=True)))


def test_a_spike_within_a_bucket_is_seen_in_its_band() -> None:
    points = curve(*[1.0] * 50)
    high = tuple(9.0 if at == 20 else 1.0 for at in range(50))
    plot = plot_of(Line("a", points, low=tuple(y for _, y in points), high=high))
    assert plot[0].strip()
    assert dots(plot[:-1]) < 20  # the band is light, the line below it is not


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (39, 8), (60, 9), (12, 3), (8, 3), (3, 1), (1, 1), (0, 0)])
@pytest.mark.parametrize("view", [View(), View(cursor=40.0, smoothing=0.03), View(left=30.5, right=31.5)])
def test_it_keeps_within_its_space(size: tuple[int, int], view: View) -> None:
    points = tuple((float(x), math.sin(x)) for x in range(99))
    lines = [
        Line(f"a name {number}", points, side=side, dashed=side == "base", base=side == "base")
        for number in range(5)
        for side in ("+TRAIN", "base")
    ]
    found = rows(*lines, width=size[0], height=size[1], title="a title of some length", view=view, log=size[0] > 50)
    assert max(map(len, found), default=0) <= size[0]
    assert len(found) <= size[1]


def test_axis_and_legend_say_what_is_drawn() -> None:
    own = Line("robust", ((1.0, 0.5), (40.0, 2.5)), side="+TRAIN")
    other = Line("robust", own.points, dashed=True, side="base")
    found = rows(own, other, Line("ce", own.points), title="losses", width=79, height=15, y_unit="%")
    assert found[0].split() == ["losses", "%", "━", "robust", "━", "ce", "━", "+TRAIN", "╍", "base"]
    assert [row[: AXIS - 1].strip() for row in found[1:-2] if row[: AXIS - 1].strip()] == [
        "2.5", "2.0", "1.5", "1.0", "0.5",
    ]  # fmt: skip
    assert found[-1].split() == ["epoch", "10", "20", "30", "40"]
    ends = " ".join(row[AXIS + 50 :] for row in found[1:-2])
    assert "robust base" in ends  # without colour, names at their ends tell lines apart
    assert "ce" in ends


@pytest.mark.parametrize("height", [8, 14, 30])
def test_names_stand_in_the_order_of_the_ends_of_their_lines(height: int) -> None:
    ends = {"total": 4.3, "both": 4.3, "topology": 2.8, "robust": 0.4, "ce": 0.35, "kl": 0.3, "standard": 0.0}
    given = ("kl", "total", "robust", "standard", "ce", "topology", "both")
    found = rows(*(Line(each, curve(2.0, ends[each])) for each in given), width=79, height=height)
    named = [row.split()[-1] for row in found[1:] if row.split()[-1:] and row.split()[-1] in ends]
    assert named == sorted(named, key=lambda each: -ends[each])
    if height > 8:  # there is room for all, and none is led away from its line by names elsewhere
        assert len(named) == len(ends)
        where = next(number for number, row in enumerate(found) if row.endswith(" topology"))
        assert any(BLANK < character <= "\u28ff" for character in found[where][-25:])


def test_a_single_line_needs_no_legend() -> None:
    assert rows(Line("only", ((1.0, 1.0), (2.0, 2.0))))[0].strip() == "t"


def test_a_dashed_line_has_gaps() -> None:
    points = ((0.0, 0.0), (1.0, 1.0))
    assert 0 < dots(plot_of(Line("a", points, dashed=True))) < dots(plot_of(Line("a", points)))


def test_what_is_no_number_leaves_a_gap_and_nothing_is_said_to_be_nothing() -> None:
    assert dots(plot_of(Line("a", ((1.0, math.nan), (2.0, math.inf), (3.0, 5.0))))) == 1
    for lines in ([Line("a", ((1.0, math.nan),))], [], [Line("a", ())]):
        assert any("no values yet" in row for row in rows(*lines))


def test_a_log_scale_spreads_small_values_and_counts_what_it_leaves_out() -> None:
    points = curve(1000.0, 100.0, 10.0, 1.0, 0.0, -1.0)
    found = rows(Line("a", points), height=20, log=True)
    assert "log" in found[0]
    assert "2 not above 0" in found[0]
    labels = {row[: AXIS - 1].strip(): at for at, row in enumerate(found) if row[: AXIS - 1].strip()}
    places = [labels[name] for name in ("1000", "100", "10.0", "1.00")]
    steps = [after - before for before, after in itertools.pairwise(places)]
    assert max(steps) - min(steps) <= 1
    assert any("no values yet" in row for row in rows(Line("a", curve(-1.0, 0.0)), log=True))


def test_a_zoomed_chart_shows_its_part_and_lines_run_out_of_it() -> None:
    points = tuple((float(x), float(x % 2) * 1000 if 40 < x < 60 else float(x)) for x in range(101))
    found = rows(Line("a", points), view=View(left=10.0, right=20.0), width=60)
    assert found[-1].split()[0] == "epoch"
    assert set(found[-1].split()[1:]) <= {str(x) for x in range(10, 21)}
    assert all(row[AXIS] != " " or row[-1] != " " or row.strip() for row in found[1:-1])
    between = plot_of(Line("a", ((0.0, 0.0), (10.0, 1.0), (20.0, 0.0))), view=View(left=9.0, right=11.0))
    assert between[-1][0] == " " or dots(between) > 40  # the neighbours outside are where its ends come from


def test_the_cursor_reads_both_sides_and_their_difference() -> None:
    base = Line("robust", curve(1.0, 2.0, 3.0), dashed=True, side="base", base=True)
    own = Line("robust", curve(1.0, 2.5, 3.0), side="+TRAIN")
    said = " ".join(rows(own, base, width=79, height=12, view=View(cursor=2.1))[:3])
    assert "epoch 2" in said
    assert "━ robust 2.5 ╍ base 2 Δ +0.5" in said
    smoothed = " ".join(rows(own, base, width=99, height=12, view=View(cursor=2.0, smoothing=0.1))[:3])
    assert "2.5 ~2.4" in smoothed
    named = (Line("base", base.points, dashed=True, base=True), Line("+TRAIN", own.points))
    assert "Δ +0.5" in " ".join(rows(*named, width=79, height=12, view=View(cursor=2.0))[:3])
    short = Line("ended", curve(1.0), side="+TRAIN")
    assert "ended" not in " ".join(rows(base, short, width=99, height=12, view=View(cursor=3.0))[:2])


@pytest.mark.parametrize("half_life", [0.3, 5.0, 1000.0])
def test_smoothing_is_the_average_of_the_formula(half_life: float) -> None:
    draw = random.Random(3)
    points, x = [], 0.0
    for _ in range(200):
        x += draw.choice((0.0, 0.1, 1.0, 40.0))
        points.append((x, draw.gauss(0, 1)))
    smoothed = smooth(points, half_life)
    assert [y for _, y in smoothed] == pytest.approx(average(points, half_life), rel=1e-9, abs=1e-9)
    assert [at for at, _ in smoothed] == [at for at, _ in points]
    assert smooth(points, 0.0) == tuple(points)
    assert smooth((), half_life) == ()


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [(0.0, 1.0, 6, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (3.0, 97.0, 5, [20.0, 40.0, 60.0, 80.0]),
     (-1.0, 1.0, 3, [-1.0, 0.0, 1.0]),
     (0.0, 1e-9, 2, [0.0, 1e-9]), (1e300, 2e300, 2, [1e300, 2e300]), (5.0, 5.0, 3, [5.0]), (1.0, 2.0, 0, [])],
)  # fmt: skip
def test_ticks_are_round(low: float, high: float, most: int, expected: list[float]) -> None:
    assert axes.ticks(low, high, most) == pytest.approx(expected)


def test_ticks_of_time_are_round_on_a_clock() -> None:
    assert axes.time_ticks(0, 600, 6) == [0, 120, 240, 360, 480, 600]
    assert [axes.x_label(t, "time", 1800.0) for t in axes.time_ticks(0, 7300, 5)] == [
        "0:00", "30:00", "1:00:00", "1:30:00", "2:00:00",
    ]  # fmt: skip
    assert len(axes.time_ticks(0, 1e9, 5)) <= 5
    assert axes.x_label(0.25, "time", 0.25) == "0.2s"


@pytest.mark.parametrize("value", [0.0, 1e-7, -3.14159, 99.95, 123456.7, -0.0, 1e300, -1e-300, 0.001, -99999.0])
def test_labels_fit_the_axis(value: float) -> None:
    assert len(axes.label(value)) <= 6
    found = rows(Line("a", ((1.0, value), (2.0, value + abs(value) + 1))))
    assert {row[AXIS - 1] for row in found[1:-1]} <= {"┤", "│"}


class Bench(App[None]):
    """Two charts that are looked at together."""

    def compose(self) -> ComposeResult:
        yield Charts()


async def test_keys_and_mouse_turn_all_charts_together() -> None:
    points = tuple((float(x), float(x % 7)) for x in range(101))
    app = Bench()
    async with app.run_test(size=(120, 40)) as pilot:
        charts = app.query_one(Charts)
        charts.show(
            [Drawing("a", "", (Line("a", points),)), Drawing("b", "%", (Line("b", points),))], "step", (0.0, 100.0)
        )
        charts.focus_chart()
        await pilot.pause()
        a, b = (chart for chart in app.query(Chart) if chart.display)
        assert a.has_focus
        a.zoom(0.5)
        await pilot.pause()
        assert (b.view.left, b.view.right) == (25.0, 75.0) == (charts.view.left, charts.view.right)
        b.pan(1.0)
        await pilot.pause()
        assert (a.view.left, a.view.right) == (50.0, 100.0)
        b.step(-1)
        await pilot.pause()
        assert a.view.cursor == 100.0
        b.step(-1)
        b.step(-1)
        assert b.view.cursor == 98.0
        await pilot.pause()
        a.zoom(0.5)
        assert (a.view.left, a.view.right) == (74.0, 99.0)
        a.smoother()
        await pilot.pause()
        assert b.view.smoothing == 0.01
        a.zoom(100.0)
        assert a.view.left is None
        await pilot.click(a, offset=(AXIS + 20, 5))
        assert 0 < (b.view.cursor or 0) < 100
        a.reset()
        await pilot.pause()
        assert b.view == View(smoothing=0.01)
        charts.turn_to(1)
        await pilot.pause()
        assert b.has_focus
        charts.enlarge()
        await pilot.pause()
        assert [chart.display for chart in (a, b)] == [False, True]
        charts.turn_to(1)
        await pilot.pause()
        assert a.display
        assert a.has_focus
        charts.enlarge()
        await pilot.pause()
        assert a.display and b.display


async def test_what_has_not_changed_is_not_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Bench()
    async with app.run_test(size=(80, 24)) as pilot:
        charts = app.query_one(Charts)
        lines = (Line("a", curve(1.0, 2.0)),)
        charts.show([Drawing("a", "", lines)], "step", None)
        await pilot.pause()
        asked: list[object] = []
        monkeypatch.setattr(Chart, "refresh", lambda *given, **how: asked.append(given))
        charts.show([Drawing("a", "", (Line("a", curve(1.0, 2.0)),))], "step", None)
        assert asked == []
        charts.show([Drawing("a", "", (Line("a", curve(1.0, 2.0, 3.0)),))], "step", None)
        assert len(asked) == 1
