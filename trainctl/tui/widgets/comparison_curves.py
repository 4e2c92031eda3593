"""Curves of a pair: both sides with the band of their seeds, and below each the difference TRAIN − baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from textual.app import ComposeResult
from textual.containers import Grid

from trainctl.plot.series import Band
from trainctl.plot.titles import title
from trainctl.tui.feed.comparison import Curve
from trainctl.tui.widgets.chart import Chart, Line
from trainctl.tui.widgets.curves import Plot

MOST = 4  # metrics beside each other
WIDTH = 38  # characters that a chart wants


class PairCurves(Grid):
    """As many metrics as there is room for, from `first` on; each has a chart above and its difference below."""

    DEFAULT_CSS = """
    PairCurves { grid-size: 2 2; grid-gutter: 1 2; padding: 0 1; height: 1fr; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curves: Sequence[Curve] = ()
        self._colors: tuple[str, ...] = ()
        self._first = 0

    def compose(self) -> ComposeResult:
        """A chart and its difference for each metric; those without room are hidden."""
        for row in ("both", "difference"):
            for number in range(MOST):
                yield Chart(id=f"{row}-{number}")

    def show(self, curves: Sequence[Curve], colors: tuple[str, ...]) -> None:
        """Draw; `colors` are the baseline's, the twin's and the difference's."""
        self._curves, self._colors = curves, colors
        self._draw()

    def turn(self, by: int) -> None:
        """Show the metrics so many further on."""
        self._first += by
        self._draw()

    def on_resize(self) -> None:
        """Another number of metrics may fit."""
        self._draw()

    def _draw(self) -> None:
        room = max(1, min(MOST, (self.size.width - 2) // WIDTH, len(self._curves)))
        self._first = max(0, min(self._first, len(self._curves) - room))
        self.styles.grid_size_columns = room
        compared = any(curve.difference for curve in self._curves)
        self.styles.grid_size_rows = 2 if compared else 1
        for number in range(MOST):
            both, apart = self.query_one(f"#both-{number}", Chart), self.query_one(f"#difference-{number}", Chart)
            both.display = number < room
            apart.display = both.display and compared
            at = self._first + number
            if number < room and at < len(self._curves):
                self._chart(self._curves[at], both, apart)
            elif number < room:
                both.show("no epoch is finished yet", [])
                apart.show("", [])

    def _chart(self, curve: Curve, both: Chart, apart: Chart) -> None:
        base, train, third = self._colors
        lines = [*_line("base", curve.baseline, base, dashed=True), *_line("+TRAIN", curve.train, train)]
        both.show(title(curve.metric), lines)
        difference = list(_line("TRAIN − baseline", curve.difference, third))
        alone = "only +TRAIN has it" if curve.baseline is None else "only the baseline has it"
        nothing = Plot.nothing if curve.baseline and curve.train else alone
        apart.show(f"Δ {title(curve.metric)}", difference, nothing=nothing)


def _line(label: str, band: Band | None, color: str, *, dashed: bool = False) -> Iterator[Line]:
    """The mean, within the smallest and the largest value of the seeds."""
    if band is not None:
        low, high = (tuple(band.low), tuple(band.high)) if band.seeds > 1 else ((), ())
        points = tuple(zip(map(float, band.epochs), band.mean, strict=True))
        yield Line(label, points, color, dashed, low, high)
