"""Several charts that are looked at together: one zoom, one cursor, one smoothing for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.containers import Grid, Vertical
from textual.message import Message
from textual.widgets import Static

from trainctl.tui.widgets.chart import Chart, Line, View

MOST = 12
WIDTHS = (100, 160)  # characters from which two, and three, stand beside each other
HEIGHTS = (8, 12)  # lines that a chart wants in a small and in a large place
LARGE = 24  # lines of a large place


@dataclass(frozen=True)
class Drawing:
    """What one chart shows."""

    title: str
    y_unit: str
    lines: tuple[Line, ...]


class Charts(Vertical):
    """As many charts as there is room for; the others are on further pages, and the focus turns them."""

    DEFAULT_CSS = """
    Charts {
        height: 1fr;
        & > Grid { height: 1fr; grid-gutter: 0 2; padding: 0 1; }
        & > Static { height: 1; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
    }
    """

    @dataclass
    class Turned(Message):
        """Somebody looks at another part of x."""

        view: View

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.view = View()
        """What all charts look at."""
        self._drawings: Sequence[Drawing] = ()
        self._unit, self._said = "", ""
        self._at, self._enlarged = 0, False
        self._layout_of: object = None

    def compose(self) -> ComposeResult:
        """A line that says how it is drawn, and the charts."""
        yield Static(markup=False)
        with Grid():
            for number in range(MOST):
                yield Chart(id=f"chart-{number}")

    def on_mount(self) -> None:
        """Nothing is shown before there is something to show."""
        for chart in self._charts():
            chart.display = False

    def show(self, drawings: Sequence[Drawing], unit: str, extent: tuple[float, float] | None, said: str = "") -> None:
        """Draw; `unit` is that of x, which reaches over `extent`. `said` stands in the line above the charts."""
        if unit != self._unit and self._unit:
            self._look(View(smoothing=self.view.smoothing))
        self._drawings, self._unit, self._said = drawings[:MOST], unit, said
        for chart, drawing in zip(self._charts(), self._drawings, strict=False):
            chart.show(drawing.title, drawing.lines, unit, drawing.y_unit, extent)
        self._arrange()

    @property
    def chart(self) -> Chart:
        """The chart that the keys mean."""
        return self._charts()[self._at]

    def turn_to(self, by: int) -> None:
        """Focus the chart so many further on, around the end."""
        if self._drawings:
            self._at = (self._at + by) % len(self._drawings)
            self._arrange()
            self.screen.set_focus(self.chart)

    def enlarge(self) -> None:
        """Give the focused chart all the room, or the others theirs again."""
        self._enlarged = not self._enlarged
        self._arrange()

    def focus_chart(self) -> None:
        """Let the keys act on the chart that had them last."""
        self.screen.set_focus(self.chart)

    def _charts(self) -> list[Chart]:
        return list(self.query(Chart))

    @on(Chart.Turned)
    def _turned(self, event: Chart.Turned) -> None:
        event.stop()
        self._look(event.chart.view)

    def _look(self, view: View) -> None:
        before, self.view = self.view, view
        for chart in self._charts():
            chart.view = view
        self._tell()
        if (before.left, before.right) != (view.left, view.right):
            self.post_message(self.Turned(view))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """The focused chart is the one that the keys mean."""
        if isinstance(event.widget, Chart):
            self._at = self._charts().index(event.widget)
            self._tell()

    def on_resize(self) -> None:
        """Another number of charts may fit."""
        self._arrange()

    def _shape(self) -> tuple[int, int]:
        """Columns and rows of charts on a page."""
        if self._enlarged:
            return 1, 1
        width, height = self.size.width, self.size.height - 1
        columns = min(1 + sum(width >= least for least in WIDTHS), max(1, len(self._drawings)))
        rows = max(1, height // HEIGHTS[height >= LARGE])
        return columns, min(rows, -(-max(1, len(self._drawings)) // columns))

    def _arrange(self) -> None:
        columns, rows = self._shape()
        self._at = min(self._at, max(0, len(self._drawings) - 1))
        first = self._at // (columns * rows) * columns * rows
        layout = (columns, rows, first, len(self._drawings))
        if layout != self._layout_of:
            self._layout_of = layout
            grid = self.query_one(Grid)
            grid.styles.grid_size_columns, grid.styles.grid_size_rows = columns, rows
            for number, chart in enumerate(self._charts()):
                chart.display = first <= number < min(first + columns * rows, len(self._drawings))
        self._tell()

    def _tell(self) -> None:
        columns, rows = self._shape()
        first, count = self._at // (columns * rows) * columns * rows, len(self._drawings)
        parts = []
        if count > columns * rows:
            parts.append(f"{first + 1}–{min(first + columns * rows, count)} of {count} charts")
        if self.view.smoothing:
            parts.append(f"smoothed over {self.view.smoothing:.0%}")
        if self.view.left is not None:
            parts.append("zoomed")
        parts.append(self._said)
        self.query_one(Static).update(
            Text(" · ".join(parts) if count else "No step is logged yet: the curves begin with the first.")
        )
