"""The braille line chart."""

from __future__ import annotations

import math

import pytest

from trainctl.tui.widgets.chart import AXIS, Line, draw

BLANK = "\u2800"


def rows(text: str) -> list[str]:
    return text.split("\n")


def plot_of(*lines: Line, width: int = 40, height: int = 10) -> list[str]:
    return [row[AXIS:] for row in rows(draw("t", lines, "epoch", width, height).plain)[1:-1]]


def dots(plot: list[str]) -> int:
    return sum((ord(c) - ord(BLANK)).bit_count() for row in plot for c in row if c != " ")


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right_corner() -> None:
    plot = plot_of(Line("a", ((0.0, 0.0), (1.0, 1.0))))
    assert ord(plot[-1][0]) & 0x40
    assert ord(plot[0][-1]) & 0x08
    assert plot[0][0] == plot[-1][-1] == " "
    assert all(row.strip() for row in plot)


@pytest.mark.parametrize("points", [100, 10_000])
def test_no_spike_is_lost(points: int) -> None:
    at = points // 3
    plot = plot_of(Line("a", tuple((float(x), 1000.0 if x == at else 0.0) for x in range(points))))
    assert all(row.strip() for row in plot)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (39, 8), (12, 3), (8, 3), (3, 1), (1, 1), (0, 0)])
def test_it_keeps_within_its_space(width: int, height: int) -> None:
    line = Line("a name", tuple((float(x), math.sin(x)) for x in range(99)))
    text = draw("a title of some length", [line, Line("b", line.points, dashed=True)], "epoch", width, height).plain
    assert max(map(len, rows(text))) <= width
    assert len(rows(text)) <= max(height, 1)


def test_axis_and_legend_say_what_is_drawn() -> None:
    own = Line("+TRAIN", ((1.0, 0.5), (40.0, 2.5)))
    text = draw("robust loss", [own, Line("base", own.points, dashed=True)], "epoch", 60, 9).plain
    assert rows(text)[0].startswith("robust loss")
    assert rows(text)[0].endswith("━+TRAIN ╍base")
    assert [row[: AXIS - 1].strip() for row in rows(text)[1:-1] if row[: AXIS - 1].strip()] == ["2.50", "1.50", "0.50"]
    assert rows(text)[-1].split() == ["1", "epoch", "40"]


def test_a_single_line_needs_no_legend() -> None:
    assert rows(draw("t", [Line("only", ((1.0, 1.0), (2.0, 2.0)))], "epoch", 40, 8).plain)[0].strip() == "t"


def test_a_dashed_line_has_gaps() -> None:
    points = ((0.0, 0.0), (1.0, 1.0))
    assert 0 < dots(plot_of(Line("a", points, dashed=True))) < dots(plot_of(Line("a", points)))


def test_what_is_no_number_leaves_a_gap_and_nothing_is_said_to_be_nothing() -> None:
    broken = Line("a", ((1.0, math.nan), (2.0, math.inf), (3.0, 5.0)))
    assert dots(plot_of(broken)) == 1
    assert "no values yet" in draw("t", [Line("a", ((1.0, math.nan),))], "epoch", 40, 8).plain
    assert "no values yet" in draw("t", [], "epoch", 40, 8).plain


@pytest.mark.parametrize("value", [0.0, 1e-7, -3.14159, 99.95, 123456.7, -0.0, 1e300])
def test_labels_fit_the_axis(value: float) -> None:
    text = draw("t", [Line("a", ((1.0, value), (2.0, value + abs(value) + 1)))], "epoch", 40, 8).plain
    assert {row[AXIS - 1] for row in rows(text)[1:-1]} <= {"┤", "│"}
