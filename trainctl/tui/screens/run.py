"""One run: its curves beside those of its pair's other run, its log, recipe, results and load."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from rich.console import RenderableType
from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Footer, Static, TabbedContent, TabPane, Tabs

from trainctl.home import Home
from trainctl.tui import keys, themes
from trainctl.tui.feed.run import UNITS, Ask, Panel, RunFeed, RunView
from trainctl.tui.screens import acts
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.text import one_line
from trainctl.tui.widgets import about
from trainctl.tui.widgets.chart import Line
from trainctl.tui.widgets.charts import Charts, Drawing
from trainctl.tui.widgets.log import LogView
from trainctl.tui.widgets.system import SystemPanel

CHART_ACTIONS = ("next_chart", "enlarge", "zoom", "pan", "cursor", "reset", "log_scale", "smooth", "unit", "overlay")
NO_ENVIRONMENT = "env.json is written when the run starts."
BUCKETS = (200, 400, 800)  # points of a curve, by the width of a chart


class RunScreen(LiveScreen):
    """Opened with enter on a run."""

    CSS = """
    RunScreen {
        & #facts { height: 4; padding: 0 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        & TabbedContent { height: 1fr; }
        & ContentSwitcher { height: 1fr; }
        & TabPane { padding: 0; height: 1fr; }
        & TabPane > VerticalScroll { padding: 0 1; }
        & #environment { height: 1fr; padding: 0 1; }
        & #system SystemPanel { height: 2fr; }
    }
    """
    BINDINGS = keys.bindings(keys.RUN)
    place = keys.RUN

    def __init__(self, home: Home, run_id: str) -> None:
        super().__init__()
        self.home = home
        self._run_id = run_id
        self._feed: RunFeed | None = None
        self._wanted = Ask()
        self._view: RunView | None = None

    def compose(self) -> ComposeResult:
        """Facts above, five tabs, footer."""
        yield Static(id="facts", markup=False)
        with TabbedContent(id="tabs"):
            with TabPane("1 Curves", id="curves"):
                yield Charts(id="charts")
            with TabPane("2 Log", id="log"):
                yield LogView(id="output")
            for title, name in (("3 Recipe", "recipe"), ("4 Results", "results")):
                with TabPane(title, id=name), VerticalScroll():
                    yield Static(id=f"{name}-text", markup=False)
            with TabPane("5 System", id="system"):
                yield SystemPanel(self.home, self._run_id)
                with VerticalScroll(id="environment"):
                    yield Static(id="system-text", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Tab goes from chart to chart, so the row of tabs is no place for it."""
        self.query_one(Tabs).can_focus = False
        self.query_one("#environment").can_focus = True
        self.query_one(LogView).open(self.home.run(self._run_id).log)
        self.query_one(Charts).focus_chart()

    def question(self) -> Callable[[], RunView | None]:
        """What the open tab shows."""
        feed = self._feed = self._feed or RunFeed(self.home, self._run_id, self.app.watcher)
        columns = self.size.width // (1 + (self.size.width >= 100) + (self.size.width >= 160))
        view = self.query_one(Charts).view
        buckets = next((each for each in BUCKETS if each >= 2 * columns), BUCKETS[-1])
        left, right = _margins(view.left, view.right)
        zoomed = 1 if view.left is None else 2
        ask = replace(self._wanted, left=left, right=right, buckets=buckets * zoomed)
        return lambda: feed.run(ask)

    def show(self, answer: RunView) -> None:
        """Draw what has changed."""
        self._view = answer
        self.query_one("#facts", Static).update(
            about.heading(answer.selected, answer.twin, self.app.theme), layout=False
        )
        if answer.ask.tab == "curves" and answer.ask.unit == self._wanted.unit:
            self._draw(answer)
        if answer.recipe:
            self._write("recipe", about.record(answer.recipe, "There is no recipe.toml in the run's folder."))
        if answer.results:
            self._write("results", about.results(answer.results, self.app.theme))
        if answer.environment:
            self._write("system", about.record(answer.environment, NO_ENVIRONMENT))

    def _write(self, tab: str, shown: RenderableType) -> None:
        self.query_one(f"#{tab}-text", Static).update(shown)

    def _draw(self, answer: RunView) -> None:
        row, twin = answer.selected.run, answer.twin
        sides = ("+TRAIN", "base") if row.topology else ("base", "+TRAIN")
        colors = themes.series(self.app.theme)
        drawings = [
            Drawing(panel.title, panel.y_unit, _lines(panel, sides, colors, both=twin is not None and answer.ask.twin))
            for panel in answer.panels
        ]
        said = [f"x: {answer.unit}"]
        if twin is not None:
            said.append(
                f"dashed: {sides[1]}, {one_line(twin.name)}" if answer.ask.twin else "o draws the pair's other run"
            )
        self.query_one(Charts).show(drawings, answer.unit, answer.extent, " · ".join(said))

    # --- keys -----------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A key of the charts or of the log is one only while these are seen."""
        tab = self._tab
        if action in CHART_ACTIONS:
            return tab == "curves"
        if action == "log":
            return tab == "log"
        return super().check_action(action, parameters)

    @property
    def _tab(self) -> str:
        return self.query_one(TabbedContent).active if self.is_mounted else "curves"

    def action_tab(self, tab: str) -> None:
        """Go to a tab, and let the keys act on what stands in it."""
        self.set_focus(None)  # what has the focus would open its own tab again
        self.query_one(TabbedContent).active = tab

    @on(TabbedContent.TabActivated)
    def _opened(self) -> None:
        """Ask for what the tab shows."""
        self._wanted = replace(self._wanted, tab=self._tab)
        if self._tab == "curves":
            self.query_one(Charts).focus_chart()
        elif self._tab == "log":
            self.query_one(LogView).focus()
        else:
            self.set_focus(self.query_one(f"#{self._tab} VerticalScroll"))
        self.refresh_bindings()
        self.load()

    @on(Charts.Turned)
    def _turned(self) -> None:
        """Ask for more points of the part that is looked at."""
        self.load()

    def action_log(self, what: str) -> None:
        """A key of the log."""
        self.query_one(LogView).action_log(what)

    def action_next_chart(self, by: int) -> None:
        """Focus another chart."""
        self.query_one(Charts).turn_to(by)

    def action_enlarge(self) -> None:
        """One chart in all the room, and back."""
        self.query_one(Charts).enlarge()

    def action_zoom(self, factor: float) -> None:
        """Look closer, or at more."""
        self.query_one(Charts).chart.zoom(factor)

    def action_pan(self, share: float) -> None:
        """Look further left or right."""
        self.query_one(Charts).chart.pan(share)

    def action_cursor(self, direction: int) -> None:
        """Move the cursor."""
        self.query_one(Charts).chart.step(direction)

    def action_reset(self) -> None:
        """Show all."""
        self.query_one(Charts).chart.reset()

    def action_log_scale(self) -> None:
        """Draw the focused chart's y on a log scale, or not."""
        chart = self.query_one(Charts).chart
        chart.log_scale = not chart.log_scale

    def action_smooth(self) -> None:
        """The next half-life."""
        self.query_one(Charts).chart.smoother()

    def action_unit(self) -> None:
        """What x counts: epoch, step, time."""
        shown = self._view.unit if self._view and self._view.unit else UNITS[0]
        unit = UNITS[(UNITS.index(self._wanted.unit or shown) + 1) % len(UNITS)]
        self._wanted = replace(self._wanted, unit=unit)
        self.query_one(Charts).chart.reset()
        self.load()

    def action_overlay(self) -> None:
        """Draw the pair's other run too, or not."""
        if self._view and self._view.twin is None:
            self._tell_no_twin()
        self._wanted = replace(self._wanted, twin=not self._wanted.twin)
        self.load()

    def action_pair(self) -> None:
        """Open the pair's other run; esc leads back here."""
        if self._view and self._view.twin:
            self.app.push_screen(RunScreen(self.home, self._view.twin.id))
        else:
            self._tell_no_twin()

    def action_compare(self) -> None:
        """Compare the two runs of the pair."""
        from trainctl.tui.screens.compare import CompareScreen

        if self._view and self._view.twin:
            self.app.push_screen(CompareScreen(self.home, runs=[self._run_id, self._view.twin.id]))
        else:
            self._tell_no_twin()

    def action_back(self) -> None:
        """Back to where it was opened."""
        self.dismiss()

    def action_act(self, what: str) -> None:
        """Stop, resume, retry, note or tag this run."""
        deeds = {
            "stop": acts.ask_to_stop, "resume": acts.resume, "retry": acts.retry,
            "note": acts.ask_note, "tag": acts.ask_tags,
        }  # fmt: skip
        if self._view:
            deeds[what](self, self.home, [self._view.selected.run])

    def _tell_no_twin(self) -> None:
        row = self._view.selected.run if self._view else None
        hint = f": `trainctl run {row.recipe} --pair` makes both" if row else ""
        self.notify(f"there is no other run of its pair with the same seed{hint}", severity="warning", markup=False)


def _margins(left: float | None, right: float | None) -> tuple[float | None, float | None]:
    """Half a range more at either side, so that lines run out of the frame and the next pan finds them drawn."""
    if left is None or right is None:
        return None, None
    return left - (right - left) / 2, right + (right - left) / 2


def _lines(panel: Panel, sides: tuple[str, str], colors: tuple[str, ...], *, both: bool) -> tuple[Line, ...]:
    """The curves of a chart; a metric has one colour, of the pair's other run the line is dashed."""
    labels = list(dict.fromkeys(curve.label for curve in panel.curves))
    lines = []
    for curve in panel.curves:
        buckets = [bucket for bucket in curve.buckets if bucket.n]
        side = sides[curve.other] if both else ""
        points = tuple(((bucket.first + bucket.last) / 2, bucket.mean) for bucket in buckets)
        low, high = tuple(bucket.low for bucket in buckets), tuple(bucket.high for bucket in buckets)
        color = colors[labels.index(curve.label) % len(colors)]
        label = curve.label if len(labels) > 1 else ""
        lines.append(Line(label, points, color, curve.other, low, high, side, side == "base"))
    return tuple(lines)
