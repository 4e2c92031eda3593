"""One run: curves beside those of its twin, its log, its recipe."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Grid, VerticalScroll
from textual.widgets import Footer, Log, Static, TabbedContent, TabPane

from trainctl.home import Home
from trainctl.plot.titles import title
from trainctl.registry.query import RunRow
from trainctl.tui import keys
from trainctl.tui.feed.run import RunFeed, RunView
from trainctl.tui.screens.acts import ask_to_stop, resume
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.widgets.chart import COLORS, Chart, Line
from trainctl.tui.widgets.panel import facts

CHARTS = 6  # the last two only where there is room
LOG_LINES = 5000


class RunScreen(LiveScreen):
    """Opened with enter on a run."""

    place = keys.RUN
    BINDINGS = keys.bindings(keys.RUN)

    def __init__(self, home: Home, run_id: str) -> None:
        super().__init__()
        self.home = home
        self._run_id = run_id
        self._feed = RunFeed(home, run_id)
        self._row: RunRow | None = None

    def compose(self) -> ComposeResult:
        """Facts above, three tabs, footer."""
        yield Static(id="facts", markup=False)
        with TabbedContent(id="tabs"):
            with TabPane("Curves", id="curves"), Grid(id="charts"):
                for number in range(CHARTS):
                    yield Chart(id=f"chart-{number}", classes="extra" if number >= 4 else None)
            with TabPane("Log", id="log"):
                yield Log(id="output", max_lines=LOG_LINES)
            with TabPane("Recipe", id="recipe"), VerticalScroll():
                yield Static(id="about", markup=False)
        yield Footer(show_command_palette=False)

    def question(self) -> Callable[[], RunView]:
        """Everything about the run."""
        return self._feed.run

    def show(self, answer: RunView) -> None:
        """Draw the curves, append to the log."""
        self._row = answer.selected.run
        self.query_one("#facts", Static).update(facts(answer.selected))
        twin = {curve.metric: curve.points for curve in answer.twin_curves}
        own, other = ("+TRAIN", "base") if self._row.topology else ("base", "+TRAIN")
        for number in range(CHARTS):
            chart = self.query_one(f"#chart-{number}", Chart)
            chart.visible = number < len(answer.curves)
            if chart.visible:
                curve = answer.curves[number]
                lines = [Line(own, curve.points, COLORS[self._row.topology], dashed=not self._row.topology)]
                if twin.get(curve.metric):
                    lines.append(
                        Line(other, twin[curve.metric], COLORS[not self._row.topology], dashed=self._row.topology)
                    )
                chart.show(title(curve.metric), lines, answer.unit)
        log = self.query_one("#output", Log)
        if answer.restart:
            log.clear()
        if answer.added:
            log.write(answer.added)
        self.query_one("#about", Static).update(Text(answer.recipe))

    def action_tab(self, tab: str) -> None:
        """Go to a tab, and let the keys scroll what stands in it."""
        self.query_one(TabbedContent).active = tab
        focus = {"log": "#output", "recipe": "#recipe VerticalScroll"}.get(tab)
        if focus:
            self.query_one(focus).focus()
        if tab == "log":  # what was written while it was hidden could not be scrolled to
            log = self.query_one("#output", Log)
            self.call_after_refresh(log.scroll_end, animate=False)

    def action_back(self) -> None:
        """Back to the runs."""
        self.dismiss()

    def action_stop(self) -> None:
        """Ask whether to stop the run."""
        if self._row:
            ask_to_stop(self, self.home, self._row)

    def action_resume(self) -> None:
        """Queue the run again."""
        if self._row:
            resume(self, self.home, self._row)
