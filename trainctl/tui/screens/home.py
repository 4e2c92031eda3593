"""The runs: a live table, a filter, and what the selected run is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.message import Message
from textual.widgets import Footer, Input, Static

from engine.rundir import AT_WORK
from trainctl.home import Home
from trainctl.registry.groups import GroupLine
from trainctl.registry.query import RunRow
from trainctl.registry.window import View
from trainctl.tui import keys
from trainctl.tui.columns import Column, chosen, sorted_column
from trainctl.tui.feed.errors import explain
from trainctl.tui.feed.runs import GROUP, Overview, Question, Row, RunsFeed, group_of, key
from trainctl.tui.screens import acts
from trainctl.tui.screens.columns import ColumnsScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.text import ROBUST, one_line, robust_of
from trainctl.tui.widgets.filter_hint import FilterHint
from trainctl.tui.widgets.panel import Panel
from trainctl.tui.widgets.runs import RunsTable

EMPTY = """\
No runs yet.

Press l to choose a recipe and launch it. Or, in a shell, train
a baseline and its +TRAIN twin on digits, which takes a minute or two:

    trainctl run digits-trades --pair

This screen shows them as soon as they start. ? lists all keys."""
GROUPS = {"": "", "recipe": "recipe", "pair": "pair", "group": "all but the seed"}
"""What runs are grouped by, in the order of the key, with the word for it."""

Deed = Callable[[list[RunRow]], None]

ACTS = {
    "stop": acts.ask_to_stop, "resume": acts.resume, "retry": acts.retry, "tag": acts.ask_tags, "note": acts.ask_note,
    "archive": acts.archive, "delete": acts.ask_to_delete,
}  # fmt: skip


class HomeScreen(LiveScreen):
    """What the dashboard opens with."""

    DEFAULT_CSS = """
    HomeScreen {
        #title { height: 1; background: $panel; text-wrap: nowrap; text-overflow: ellipsis; }
        #body { height: 1fr; layout: vertical; }
        #list { height: 1fr; }
        #empty { height: 1fr; padding: 2 4; }
        #panel { height: 10; max-height: 50%; border-top: solid $foreground 20%; padding: 0 1; }
        &.-tall #panel { height: 16; }
        &.-wide #body { layout: horizontal; }
        &.-wide #list { width: 1fr; }
        &.-wide #panel { width: 64; height: 1fr; max-height: 100%; border: none; border-left: solid $foreground 20%; }
        #search { height: 3; background: $boost; }
        #search Horizontal { height: 1; }
        #slash { width: 2; color: $accent; text-style: bold; }
        #filter { height: 1; width: 1fr; background: $boost; }
    }
    """
    place = keys.HOME
    BINDINGS = keys.bindings(keys.HOME)

    @dataclass
    class Found(Message):
        """Runs that were looked for, and what is to be done to them."""

        runs: list[RunRow]
        deed: Deed

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home
        self._view = View()
        self._marked: frozenset[str] = frozenset()
        self._answer: Overview | None = None

    def compose(self) -> ComposeResult:
        """Title, table and panel, filter, footer."""
        yield Static(id="title", markup=False)
        with Container(id="body"):
            with Vertical(id="list"):
                yield RunsTable(id="runs")
                yield Static(Text(EMPTY), id="empty", markup=False)
            yield Panel(id="panel")
        with Vertical(id="search"):
            with Horizontal():
                yield Static("/", id="slash", markup=False)
                yield Input(id="filter", placeholder="natural>80 and method=trades", compact=True)
            yield FilterHint(id="mistake", markup=False)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """The filter is hidden until it is asked for, the panel until there is a run."""
        settings = self.app.settings
        self._feed = RunsFeed(self.home, self.app.watcher)
        self._view = View(sort=settings.sort, group=settings.group if settings.group in GROUPS else "")
        for name in ("#search", "#empty", "#panel"):
            self.query_one(name).display = False
        self._table.choose(settings.columns)
        self._table.focus()

    def on_resize(self) -> None:
        """The title has another width."""
        if self._answer is not None:
            self._entitle()

    def question(self) -> Callable[[], Overview | None]:
        """The lines that are seen, and what stands under the cursor."""
        table = self._table
        offset, size = table.wanted
        curves = any(column.key == "curve" for column in chosen(self.app.settings.columns))
        asked = Question(self._view, offset, size, table.cursor_row, table.here, curves, self._marked)
        return lambda: self._feed.overview(asked)

    def show(self, answer: Overview) -> None:
        """Show them. While the filter cannot be read, the table keeps what it had."""
        if answer.marked != answer.asked.marked:
            self._mark(self._marked - (answer.asked.marked - answer.marked))
        if answer.asked.view != self._view:
            return  # a newer question is on its way
        self.query_one(FilterHint).say(answer.mistake, self.query_one("#filter", Input).value)
        if self._answer is None:
            self.query_one("#empty", Static).update(Text(EMPTY))
        empty = not answer.window.total and not answer.hidden
        table, panel = self._table, self.query_one(Panel)
        self.query_one("#empty").display, table.display, panel.display = empty, not empty, not empty
        table.show(answer)
        if answer.selected is None or key(answer.selected) == table.here:
            panel.show(answer.selected)
        self._answer = answer
        self._entitle()

    @on(LiveScreen.Failed)
    def _excuse(self, message: LiveScreen.Failed) -> None:
        """Say in the place of runs that could not be read why that is so: the notice goes, and would leave nothing."""
        if self._answer is None:
            said = self.query_one("#empty", Static)
            said.update(Text(explain(message.error)))
            said.display, self._table.display = True, False

    def _entitle(self) -> None:
        """Counts at the left; what is filtered, grouped and sorted by; the home at the right, if there is room."""
        answer, view = self._answer, self._view
        text = Text(no_wrap=True, overflow="ellipsis").append(" trainctl ", "bold")
        if answer is not None:
            text.append(" · ".join(self._counts(answer)))
            how = [f"by {view.sort.lstrip('-')} {'▼' if view.sort.startswith('-') else '▲'}"]
            how += [f"in groups: {GROUPS[view.group]}"] if view.group else []
            how += ["archived too"] if view.archived else []
            text.append("   " + " · ".join(how), "dim")
        place = one_line(str(self.home.path))
        room = self.size.width - text.cell_len - 2
        if len(place) <= room:
            text.append(" " * (room - len(place) + 1) + place, "dim")
        self.query_one("#title", Static).update(text, layout=False)

    def _counts(self, answer: Overview) -> list[str]:
        counts, window = dict(answer.window.counts), answer.window
        parts = [f"{window.total} run{'s' * (window.total != 1)}"]
        parts += [f"{len(self._marked)} marked"] if self._marked else []
        known = answer.asked.view.filtered == self._view.filtered
        if self._view.filtered and not (known and answer.mistake):
            parts.append(f"{window.fitting} fit{'s' * (window.fitting == 1)} the filter" if known else "filtering …")
        return parts + [f"{counts[name]} {name}" for name in (*AT_WORK, "queued") if name in counts]

    @property
    def _seen(self) -> View:
        """What the table shows: the answer to the newest question may still be on its way."""
        return self._answer.asked.view if self._answer else self._view

    @property
    def _table(self) -> RunsTable:
        return self.query_one(RunsTable)

    def _look(self, **changes: Any) -> None:
        """Change what the table shows, and remember the part that is to be kept."""
        self._view = replace(self._view, **changes)
        if kept := {name: value for name, value in changes.items() if name in ("sort", "group")}:
            self.app.remember(**kept)
        self._entitle()
        self.load()

    @on(RunsTable.Moved)
    def _moved(self) -> None:
        self.load()

    @on(RunsTable.Opened)
    def _chosen(self) -> None:
        self.action_open()

    @on(RunsTable.Headed)
    def _headed(self, message: RunsTable.Headed) -> None:
        self._sort_by(message.column)

    @on(Input.Changed, "#filter")
    def _typed(self, message: Input.Changed) -> None:
        self._look(filtered=message.value.strip())

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self.query_one("#search").display = bool(self._view.filtered)
        self._table.focus()

    def action_clear(self) -> None:
        """Clear the filter and go back to the table; without a filter take the marks away."""
        search = self.query_one("#search")
        if not search.display:
            self._mark(frozenset())
        search.display = False
        self.query_one("#filter", Input).value = ""
        self._table.focus()

    def action_filter(self) -> None:
        """Show the filter and write in it."""
        self.query_one("#search").display = True
        self.set_focus(self.query_one("#filter", Input))

    def action_open(self) -> None:
        """Open the selected run, or open and close a group."""
        from trainctl.tui.screens.run import RunScreen

        line = self._table.line
        if isinstance(line, GroupLine):
            self._look(opened=self._view.opened ^ {line.key})
        elif isinstance(line, Row):
            self.app.push_screen(RunScreen(self.home, line.run.id))
        else:
            self._nobody_there()

    def action_unfold(self) -> None:
        """Open the group under the cursor."""
        if isinstance(line := self._table.line, GroupLine):
            self._look(opened=self._view.opened | {line.key})

    def action_fold(self) -> None:
        """Close the group under the cursor, or that of the run there."""
        line, view = self._table.line, self._seen
        if not view.group or line is None:
            return
        group = line.key if isinstance(line, GroupLine) else group_of(line.run, view)
        self._table.to_line(GROUP + group)
        self._look(opened=self._view.opened - {group})

    def action_group(self) -> None:
        """Group by the next of the ways there are."""
        ways = list(GROUPS)
        self._look(group=ways[(ways.index(self._view.group) + 1) % len(ways)], opened=frozenset())

    def action_archived(self) -> None:
        """Show archived runs too, or hide them."""
        self._look(archived=not self._view.archived)

    def action_sort(self, by: int) -> None:
        """Sort by the next column that is shown, or by the one before."""
        columns = [column for column in self._table.shown_columns if column.sort]
        now = sorted_column(columns, self._view.sort)
        if columns:
            self._sort_by(columns[(columns.index(now) + by) % len(columns) if now else 0])

    def action_reverse(self) -> None:
        """Sort the other way round."""
        sort = self._view.sort
        self._sort(sort[1:] if sort.startswith("-") else f"-{sort}")

    def _sort_by(self, column: Column) -> None:
        """By this column: numbers the largest first, words from a to z; by the same once more, the other way round."""
        if not column.sort:
            self.notify(f"runs cannot be sorted by {column.heading}", severity="warning", markup=False)
        elif sorted_column(self._table.shown_columns, self._view.sort) is column:
            self.action_reverse()
        else:
            self._sort(("-" if column.right or column.key == "robust" else "") + self._sort_key(column))

    def _sort_key(self, column: Column) -> str:
        """What the index sorts by. Under `robust` it is one attack, the commonest here: others are not comparable."""
        if column.key != "robust":
            return column.sort
        lines = self._answer.lines if self._answer else ()
        of = [line.run.metrics if isinstance(line, Row) else line.metrics for line in lines]
        return max(ROBUST, key=lambda name: sum(robust_of(metrics) == name for metrics in of))

    def _sort(self, sort: str) -> None:
        self._table.to_top()
        self._look(sort=sort)

    def action_columns(self) -> None:
        """Choose the columns."""

        def answered(columns: tuple[str, ...] | None) -> None:
            if columns is not None:
                self.app.remember(columns=columns)
                self._table.choose(columns)
                self.load()

        shown = [column.key for column in chosen(self.app.settings.columns)]
        self.app.push_screen(ColumnsScreen(shown), answered)

    def action_mark(self) -> None:
        """Mark what is under the cursor, or unmark it, and go on to the next line."""
        line = self._table.line
        if isinstance(line, Row):
            self._mark(self._marked ^ {line.run.id})
        elif isinstance(line, GroupLine):
            self._find(self._members(line), self._toggle)
        self._table.action_move(1)

    def action_mark_all(self) -> None:
        """Mark all runs that fit, or none."""
        if self._marked:
            self._mark(frozenset())
        else:
            view = self._view  # as it is written: what is seen may be waiting for an index that has much to read
            self._find(lambda: self._feed.runs(self._feed.ids(view)), self._toggle)

    def _toggle(self, runs: list[RunRow]) -> None:
        ids = frozenset(run.id for run in runs)
        self._mark(self._marked - ids if ids <= self._marked else self._marked | ids)

    def _mark(self, marked: frozenset[str]) -> None:
        self._marked = marked
        self._table.mark(marked)
        self._entitle()

    def action_act(self, name: str) -> None:
        """Do one of ACTS to the marked runs, or to what is under the cursor."""
        self._meant(lambda runs: ACTS[name](self, self.home, runs))

    def action_compare(self) -> None:
        """Compare the marked runs or those of the group; else the finished pairs of what fits the filter."""
        from trainctl.tui.screens.compare import CompareScreen

        def compare(runs: list[RunRow]) -> None:
            self.app.push_screen(CompareScreen(self.home, runs=[run.id for run in runs]))

        line = self._table.line
        if self._marked or isinstance(line, GroupLine):
            self._meant(compare)
        else:
            self.app.push_screen(CompareScreen(self.home, self._view.filtered))

    def action_launch(self) -> None:
        """Choose a recipe and launch it."""
        from trainctl.tui.screens.launch import LaunchScreen

        self.app.push_screen(LaunchScreen(self.home))

    def action_machine(self) -> None:
        """The queue and the machine."""
        from trainctl.tui.screens.machine import MachineScreen

        self.app.push_screen(MachineScreen(self.home))

    def _meant(self, deed: Deed) -> None:
        """Do `deed` to the marked runs; without marks to the one under the cursor, or to all of the group there."""
        line, marked = self._table.line, self._marked
        if marked:
            self._find(lambda: self._feed.runs(marked), deed)
        elif isinstance(line, GroupLine):
            self._find(self._members(line), deed)
        elif isinstance(line, Row):
            deed([line.run])
        else:
            self._nobody_there()

    def _nobody_there(self) -> None:
        self.notify("there is no run under the cursor", severity="warning", markup=False)

    def _members(self, group: GroupLine) -> Callable[[], list[RunRow]]:
        view = self._seen
        return lambda: self._feed.members(view, group.key)

    def _find(self, find: Callable[[], list[RunRow]], deed: Deed) -> None:
        """Look for runs on a thread; `deed` is done to them afterwards, on the screen's own, and before another key."""
        self._search(find, deed, self.app.hold_keys())

    @work(thread=True, exit_on_error=False)
    def _search(self, find: Callable[[], list[RunRow]], deed: Deed, release: Callable[[], object]) -> None:
        try:
            self.post_message(self.Found(find(), deed))
        except Exception as error:
            self.post_message(self.Failed(error))
        finally:
            self.call_later(release)  # behind the deed

    def on_home_screen_found(self, message: Found) -> None:
        """Act on the runs that were looked for."""
        message.deed(message.runs)
