"""The runs: a live table, a filter, and what the selected run is doing."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.widgets import DataTable, Footer, Input, Static

from trainctl.cli.common import printable
from trainctl.home import Home
from trainctl.registry.query import RunRow
from trainctl.tui import keys
from trainctl.tui.feed.runs import WINDOW, Overview, RunsFeed
from trainctl.tui.feed.selected import LIVE
from trainctl.tui.screens.acts import ask_to_stop, resume
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.run import RunScreen
from trainctl.tui.widgets.panel import Panel
from trainctl.tui.widgets.runs import RunsTable

EMPTY = """\
No runs yet.

Train a baseline and its +TRAIN twin on digits, which takes a minute or two:

    trainctl run digits-trades --pair

This screen shows them as soon as they start. `trainctl recipes` lists what can be run."""


class HomeScreen(LiveScreen):
    """What the dashboard opens with."""

    place = keys.HOME
    BINDINGS = keys.bindings(keys.HOME)

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self._feed = RunsFeed(home)
        self._runs: dict[str, RunRow] = {}

    def compose(self) -> ComposeResult:
        """Title, table and panel, filter, footer."""
        yield Static(id="title", markup=False)
        with Container(id="body"):
            with Vertical(id="list"):
                yield RunsTable()
                yield Static(Text(EMPTY), id="empty", markup=False)
            yield Panel(id="panel")
        yield Static(id="filter-error", markup=False)
        yield Input(id="filter", placeholder="filter: a name, tag:x, natural>80 and method=trades …", compact=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """The filter is hidden until it is asked for, the panel until there is a run."""
        self.query_one("#filter").display = False
        self.query_one("#empty").display = False
        self.query_one("#panel").display = False
        self.query_one(RunsTable).focus()

    def question(self) -> Callable[[], Overview]:
        """The runs that fit the filter."""
        wanted, selected = self.query_one("#filter", Input).value.strip(), self.query_one(RunsTable).selected
        return lambda: self._feed.overview(wanted, selected)

    def show(self, answer: Overview) -> None:
        """Show them. While the filter cannot be read, the table keeps what it had."""
        table = self.query_one(RunsTable)
        self.query_one("#filter-error", Static).update(Text(printable(answer.error).replace("\n", " ")))
        self.query_one("#filter-error").display = bool(answer.error)
        self.query_one("#title", Static).update(self._title(answer))
        empty = not answer.total
        self.query_one("#empty").display, table.display, self.query_one("#panel").display = empty, not empty, not empty
        if answer.error:
            return
        self._runs = {row.run.id: row.run for row in answer.rows}
        table.show(answer.rows)
        if answer.selected is None or answer.selected.run.id == table.selected:
            self.query_one(Panel).show(answer.selected)

    def _title(self, answer: Overview) -> Text:
        text = Text(" trainctl ", "bold", no_wrap=True, overflow="ellipsis")
        counts = dict(answer.counts)
        parts = [f"{answer.total} run{'s' * (answer.total != 1)}"]
        parts += [f"{counts[name]} {name}" for name in (*LIVE, "queued") if name in counts]
        if answer.fitting != answer.total:
            parts.append(f"{answer.fitting} fit the filter")
        if answer.fitting > WINDOW:
            parts.append(f"the newest {WINDOW} shown")
        return text.append(" · ".join(parts)).append(f"  {printable(str(self.home.path))}", "dim")

    @on(DataTable.RowHighlighted)
    def _highlighted(self) -> None:
        self.load()

    @on(DataTable.RowSelected)
    def _chosen(self) -> None:
        self.action_open()

    @on(Input.Changed, "#filter")
    def _typed(self) -> None:
        self.load()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one(RunsTable).focus()

    def key_escape(self) -> None:
        """Clear the filter and go back to the table."""
        field = self.query_one("#filter", Input)
        field.value = ""
        field.display = False
        self.query_one(RunsTable).focus()

    def action_filter(self) -> None:
        """Show the filter and write in it."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_open(self) -> None:
        """Open the selected run."""
        if run := self._selected():
            self.app.push_screen(RunScreen(self.home, run.id))

    def action_compare(self) -> None:
        """Compare the finished pairs, or of the filtered runs those that pair up."""
        field = self.query_one("#filter", Input)
        self.app.push_screen(CompareScreen(self.home, field.value.strip()))

    def action_stop(self) -> None:
        """Ask whether the selected run is to stop."""
        if run := self._selected():
            ask_to_stop(self, self.home, run)

    def action_resume(self) -> None:
        """Queue the selected run again."""
        if run := self._selected():
            resume(self, self.home, run)

    def _selected(self) -> RunRow | None:
        run = self._runs.get(self.query_one(RunsTable).selected)
        if run is None:
            self.notify("there is no run under the cursor", severity="warning", markup=False)
        return run
