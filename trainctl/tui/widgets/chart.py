"""The chart: draws what it is given, and is zoomed, panned and read off at a cursor."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from trainctl.tui import themes
from trainctl.tui.widgets.curves import Line, Plot, View
from trainctl.tui.widgets.legend import Row
from trainctl.tui.widgets.plot import AXIS, Frame, drawn
from trainctl.tui.widgets.smoothing import SHARES
from trainctl.tui.widgets.unbroken import unbroken

__all__ = ["Chart", "Line", "View"]


class Chart(Widget, can_focus=True):
    """Draws what `show` was given, in whatever space there is."""

    DEFAULT_CSS = "Chart { height: 1fr; width: 1fr; }"

    @dataclass
    class Turned(Message):
        """Somebody looks at another part, or at a part in another way."""

        chart: Chart

        @property
        def control(self) -> Chart:
            """Of which chart."""
            return self.chart

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._plot = Plot("", ())
        self._drawn: tuple[tuple[Plot, int, int, str], list[Row]] | None = None
        self._frame: Frame | None = None
        self._extent: tuple[float, float] | None = None

    def show(
        self, title: str, lines: Sequence[Line], unit: str = "epoch", y_unit: str = "",
        extent: tuple[float, float] | None = None, nothing: str = Plot.nothing,
    ) -> None:  # fmt: skip
        """Draw `lines`, or say `nothing`; `unit` is that of x, `y_unit` stands behind the title. Nothing is drawn if
        nothing changed.

        `extent` says between which x there are points, if the lines hold only those that are in view.
        """
        self._extent = extent
        self._set(title=title, lines=tuple(lines), unit=unit, y_unit=y_unit, nothing=nothing)

    @property
    def view(self) -> View:
        """What of the lines is looked at, and how."""
        return self._plot.view

    @view.setter
    def view(self, view: View) -> None:
        self._set(view=view)

    @property
    def log_scale(self) -> bool:
        """Whether y is drawn on a log scale."""
        return self._plot.log

    @log_scale.setter
    def log_scale(self, log: bool) -> None:
        self._set(log=log)

    @property
    def title(self) -> str:
        """What it shows."""
        return self._plot.title

    def _set(self, **changes: object) -> None:
        plot = replace(self._plot, **changes)  # type: ignore[arg-type]
        if plot != self._plot:
            self._plot = plot
            self.refresh()

    # --- looking --------------------------------------------------------------------------------------------

    def zoom(self, factor: float, at: float | None = None) -> None:
        """Show a range `factor` times as wide, keeping x `at` (else the cursor, else the middle) where it is."""
        ends, whole = self._ends(), self._whole()
        if ends is None or whole is None:
            return
        left, right = ends
        if at is None:
            cursor = self.view.cursor
            at = cursor if cursor is not None and left <= cursor <= right else (left + right) / 2
        left, right = at + (left - at) * factor, at + (right - at) * factor
        if left <= whole[0] and right >= whole[1]:
            self._turn(left=None, right=None)
        elif right - left > 1e-9 * (whole[1] - whole[0]):
            self._turn(left=max(left, whole[0]), right=min(right, whole[1]))

    def pan(self, share: float) -> None:
        """Move by a share of the range shown, as far as there are points."""
        ends, whole = self._ends(), self._whole()
        if ends is None or whole is None or self.view.left is None:
            return
        by = (ends[1] - ends[0]) * share
        by = min(max(by, whole[0] - ends[0]), whole[1] - ends[1])
        self._turn(left=ends[0] + by, right=ends[1] + by)

    def step(self, direction: int) -> None:
        """Move the cursor to the next point at least a character away; the first time to the first line's last."""
        frame = self._frame
        if frame is None:
            return
        xs = sorted({x for line in self._plot.lines for x, _ in line.points if frame.left <= x <= frame.right})
        cursor = self.view.cursor
        if not xs or cursor is None or not frame.left <= cursor <= frame.right:
            first = [x for x, _ in self._plot.lines[0].points if x in xs]
            self._turn(cursor=max(first or xs, default=None))
            return
        least = (frame.right - frame.left) / max(1, frame.columns)
        at = bisect_left(xs, cursor + least * 0.999) if direction > 0 else bisect_right(xs, cursor - least * 0.999) - 1
        self._turn(cursor=xs[min(max(at, 0), len(xs) - 1)])

    def smoother(self) -> None:
        """The next half-life; behind the longest none."""
        at = SHARES.index(self.view.smoothing) if self.view.smoothing in SHARES else 0
        self._turn(smoothing=SHARES[(at + 1) % len(SHARES)])

    def reset(self) -> None:
        """Show all, without a cursor."""
        self._turn(left=None, right=None, cursor=None)

    def _turn(self, **changes: float | None) -> None:
        view = replace(self.view, **changes)  # type: ignore[arg-type]
        if view != self.view:
            self.view = view
            self.post_message(self.Turned(self))

    def _ends(self) -> tuple[float, float] | None:
        return (self._frame.left, self._frame.right) if self._frame else None

    def _whole(self) -> tuple[float, float] | None:
        """The x between which there are points."""
        ends = [x for line in self._plot.lines for x, _ in (line.points[:1] + line.points[-1:])]
        return self._extent or ((min(ends), max(ends)) if ends else None)

    # --- the mouse ------------------------------------------------------------------------------------------

    def on_click(self, event: events.Click) -> None:
        """Put the cursor there."""
        if self._frame and 0 <= event.x - AXIS < self._frame.columns:
            self._turn(cursor=self._frame.x(event.x - AXIS))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Look closer at where the pointer is."""
        self._wheel(event, 0.8)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Look at more."""
        self._wheel(event, 1.25)

    def _wheel(self, event: events.MouseEvent, factor: float) -> None:
        event.stop()
        if self._frame:
            self.zoom(factor, self._frame.x(min(max(event.x - AXIS, 0), self._frame.columns - 1)))

    # --- drawing --------------------------------------------------------------------------------------------

    def on_focus(self) -> None:
        """Mark the title."""
        self._set(focused=True)

    def on_blur(self) -> None:
        """Unmark it."""
        self._set(focused=False)

    @unbroken
    def render_line(self, y: int) -> Strip:
        """One row of the picture, which is drawn anew when what it shows, its size or the theme has changed."""
        given = (self._plot, self.size.width, self.size.height, self.app.theme)
        if self._drawn is None or self._drawn[0] != given:
            rows, self._frame = drawn(*given[:3], themes.series(self.app.theme))
            self._drawn = given, rows
        rows = self._drawn[1]
        strip = Strip(rows[y] if y < len(rows) else []).adjust_cell_length(self.size.width)
        return strip.apply_style(self.rich_style)
