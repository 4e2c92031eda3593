"""The comparison of baselines with their +TRAIN twins: table, curves, price; and their export."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Static, TabbedContent, TabPane

from trainctl.cli.common import printable
from trainctl.compare.grid import HEADS
from trainctl.compare.order import BY, Order
from trainctl.compare.rows import Pair
from trainctl.home import Home
from trainctl.tui import keys
from trainctl.tui.feed.comparison import AS_MADE, CURVES, PRICE, TABLE, Asked, Compared, ComparisonFeed, Key, key
from trainctl.tui.feed.export import FORMS, Shown
from trainctl.tui.screens.export import ExportScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.themes import series
from trainctl.tui.widgets.comparison import ComparisonTable
from trainctl.tui.widgets.comparison_curves import PairCurves
from trainctl.tui.widgets.comparison_lines import LEGEND, notes

READING = "Reading the runs …"
NO_RUN = """\
Nothing to compare yet: there is no run.

A pair is a baseline and its +TRAIN twin, made by

    trainctl run digits-trades --pair --seeds 0-2"""
NOT_DONE = """\
Nothing to compare yet: no run is done.

A pair is a baseline and its +TRAIN twin, made by `trainctl run RECIPE --pair`; it shows here once both have ended."""
NOT_FITTING = """\
Nothing to compare: no run fits.

/ leads to the filter, and esc there clears it."""
PRICES = "ratio: +TRAIN over baseline, where both ran on the same device"
SIDES = {"delta": "Δ ", "train": "+TRAIN's ", "baseline": "baseline's "}


class CompareScreen(LiveScreen):
    """The runs of the ids `runs`, or those that a filter means, or every run that is done."""

    place = keys.COMPARE
    BINDINGS = keys.bindings(keys.COMPARE)
    period = 5.0
    DEFAULT_CSS = """
    CompareScreen {
        TabbedContent { height: 1fr; }
        ContentSwitcher { height: 1fr; }
        TabPane { padding: 0; height: 1fr; }
        #nothing { height: 1fr; padding: 2 4; }
        #pair-title { height: 1; padding: 0 1; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        #notes { height: auto; max-height: 7; border-top: solid $panel-lighten-2; scrollbar-size-vertical: 1; }
        #notes-text { height: auto; padding: 0 1; }
        #filter-error { display: none; }
    }
    CompareScreen.-tall #notes { max-height: 14; }
    """

    def __init__(self, home: Home, filtered: str = "", runs: Sequence[str] = ()) -> None:
        super().__init__()
        self.home = home
        self._filtered, self._runs = filtered, tuple(runs)
        self._feed: ComparisonFeed | None = None
        self._checkpoint, self._order = "best", AS_MADE
        self._opened: frozenset[Key] = frozenset()
        self._compared: Compared | None = None

    def compose(self) -> ComposeResult:
        """Title, tabs, notes of the pair, filter, footer."""
        yield Static(Text(" compare ", "bold"), id="title", markup=False)
        yield Static(READING, id="nothing", markup=False)
        with TabbedContent():
            with TabPane("1 Table", id=TABLE):
                yield ComparisonTable(id="pairs-table")
            with TabPane("2 Curves", id=CURVES):
                yield Static(id="pair-title", markup=False)
                yield PairCurves(id="pair-curves")
            with TabPane("3 Price", id=PRICE):
                yield ComparisonTable(id="price-table")
        with VerticalScroll(id="notes"):
            yield Static(id="notes-text", markup=False)
        yield Static(id="filter-error", markup=False)
        yield Input(self._filtered, id="filter", placeholder="filter: tag:x, method=trades and seed<3 …", compact=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """The tables are hidden until there is something in them."""
        self._feed = ComparisonFeed(self.home, self.app.watcher, self._runs)
        self.query_one(TabbedContent).display = self.query_one("#notes").display = False
        self.query_one("#filter").display = bool(self._filtered)
        self.app.theme_changed_signal.subscribe(self, lambda _: self._describe())  # charts are given their colours

    def question(self) -> Callable[[], Compared | None]:
        """The comparison as it is asked for."""
        asked = Asked(
            self.query_one("#filter", Input).value.strip(), self._checkpoint, self._order,
            self.query_one(TabbedContent).active or TABLE, self._opened, self._chosen,
        )  # fmt: skip
        assert self._feed is not None
        feed = self._feed
        return lambda: feed.answer(asked)

    # --- what is seen ---------------------------------------------------------------------------------------

    def show(self, answer: Compared) -> None:
        """Draw what has changed."""
        chosen, before = self._chosen, self._compared
        self._compared = answer
        empty = not answer.entries
        self.query_one("#nothing").display = empty
        self.query_one(TabbedContent).display = self.query_one("#notes").display = not empty
        self.query_one("#nothing", Static).update(self._nothing(answer))
        self.query_one("#title", Static).update(self._title(answer))
        self.query_one("#filter-error", Static).update(Text(printable(answer.error).replace("\n", " ")))
        self.query_one("#filter-error").display = bool(answer.error)
        names = [key(entry) for entry in answer.entries]
        # Others may have come, or the order changed: the cursor stays on its pair.
        at = names.index(chosen) if chosen in names else None
        moved = before is None or before.grid is not answer.grid
        opened = {names.index(name): rows for name, rows in answer.seeds.items() if name in names}
        self._table.show(answer.grid, opened, answer.comparison.metrics, at if moved else None)
        self.query_one("#price-table", ComparisonTable).show(
            answer.prices, {}, (), at if at is not None else self._table.entry
        )
        if before is None and not empty and not isinstance(self.focused, Input):
            self._focus_table()
        self._describe()
        if self._chosen != answer.asked.chosen:
            self.load()  # another pair stands under the cursor now

    def _nothing(self, answer: Compared) -> str:
        if answer.asked.filtered and answer.total:
            return NOT_FITTING
        return NOT_DONE if answer.total else NO_RUN

    def _title(self, answer: Compared) -> Text:
        asked = answer.asked
        pairs, alone = len(answer.comparison.pairs), len(answer.comparison.alone)
        parts = [f"{asked.checkpoint} checkpoints"]
        if asked.order.metric:
            head = HEADS.get(asked.order.metric, asked.order.metric)
            parts.append(f"by {SIDES[asked.order.by]}{head}" + ", worst first" * asked.order.worst_first)
        parts += [f"{pairs} pair{'s' * (pairs != 1)}"] + [f"{alone} without a partner"] * bool(alone)
        parts += [f"{answer.left_out} older ones left out"] * bool(answer.left_out)
        said = asked.filtered or ("the marked runs" if self._runs else "every finished run")
        text = Text(" compare ", "bold", no_wrap=True, overflow="ellipsis").append(" · ".join(parts), "not bold")
        return text.append(f" · {printable(said)}", "not bold dim")

    def _describe(self) -> None:
        """The notes of the pair under the cursor, its curves, and how to make a twin that is missing."""
        answer, table = self._compared, self._table
        if answer is None or not 0 <= table.entry < len(answer.entries):
            return
        entry = answer.entries[table.entry]
        grid = answer.prices if self._tab == PRICE else answer.grid
        name = f"{entry.baseline.label}  and  {entry.train.label}" if isinstance(entry, Pair) else entry.label
        text = Text(printable(name), "bold")
        for note in notes(grid, table.entry):
            text.append(f"\n{note}", "not bold")
        known = answer.chosen if answer.chosen and answer.chosen.key == key(entry) else None
        if not isinstance(entry, Pair):
            made = known.twin if known else ""
            text.append(
                "\nIt has no partner yet. " + ("This makes it:  " if made else "Its recipe with --train makes it."),
                "not bold",
            )
            text.append(printable(made))
        text.append(f"\n{LEGEND if self._tab == TABLE else PRICES}", "dim not bold")
        self.query_one("#notes-text", Static).update(text)
        self.query_one("#notes").display = self._tab != CURVES
        if known and self._tab == CURVES:  # name and curves together: the last pair's may still be seen
            self.query_one("#pair-title", Static).update(Text(printable(name)))
            self.query_one(PairCurves).show(known.curves, series(self.app.theme)[:3])

    @property
    def _table(self) -> ComparisonTable:
        """The one whose cursor counts."""
        return self.query_one("#pairs-table", ComparisonTable)

    @property
    def _tab(self) -> str:
        return self.query_one(TabbedContent).active or TABLE

    @property
    def _chosen(self) -> Key:
        entries = self._compared.entries if self._compared else ()
        return key(entries[self._table.entry]) if 0 <= self._table.entry < len(entries) else ()

    # --- keys -----------------------------------------------------------------------------------------------

    def action_tab(self, tab: str) -> None:
        """Go to a tab."""
        self.query_one(TabbedContent).active = tab

    @on(TabbedContent.TabActivated)
    def _turned(self) -> None:
        self._focus_table()
        self._describe()
        self.load()

    def _focus_table(self) -> None:
        if self._tab == CURVES:
            self.set_focus(None)
        else:
            self.query_one("#price-table" if self._tab == PRICE else "#pairs-table").focus()

    def action_move(self, by: int) -> None:
        """Another pair, where no table has the focus."""
        self._table.action_move(by)

    def action_column(self, by: int) -> None:
        """Another metric of the curves."""
        self.query_one(PairCurves).turn(by)

    @on(ComparisonTable.Moved)
    def _moved(self, event: ComparisonTable.Moved) -> None:
        if self._tab == PRICE and self._compared:
            self._table.go_to(event.entry)
        self._describe()
        self.load()

    @on(ComparisonTable.Picked)
    def _picked(self, event: ComparisonTable.Picked) -> None:
        if event.column:
            self.action_sort()
        else:
            self.action_seeds()

    def action_seeds(self) -> None:
        """Open or close the values of the pair."""
        if self._chosen:
            self._opened ^= {self._chosen}
            self.action_tab(TABLE)
            self.load()

    def action_sort(self) -> None:
        """Sort by the column under its cursor: by Δ, +TRAIN, the baseline, and then not."""
        column = self.query_one("#price-table" if self._tab == PRICE else "#pairs-table", ComparisonTable).column
        if self._compared is None or column not in self._compared.comparison.metrics:
            self.notify("by this column the pairs are not sorted", severity="warning", markup=False)
            return
        turns = [AS_MADE, *(Order(column, by, self._order.worst_first) for by in BY)]
        now = turns.index(self._order) if self._order in turns else 0
        self._order = turns[(now + 1) % len(turns)]
        self.load()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        if self._order.metric:
            self._order = Order(self._order.metric, self._order.by, not self._order.worst_first)
            self.load()
        else:
            self.notify("the pairs are not sorted; s sorts them", severity="warning", markup=False)

    def action_checkpoint(self) -> None:
        """The other checkpoint."""
        self._checkpoint = "last" if self._checkpoint == "best" else "best"
        self.load()

    def action_filter(self) -> None:
        """Show the filter and write in it."""
        field = self.query_one("#filter", Input)
        field.display = True
        self.set_focus(field)

    @on(Input.Changed, "#filter")
    def _typed(self) -> None:
        self.load()

    @on(Input.Submitted, "#filter")
    def _entered(self) -> None:
        self._focus_table()

    def action_back(self) -> None:
        """Clear the filter if one types in it, else back to the runs."""
        field = self.query_one("#filter", Input)
        if self.focused is field:
            field.value = ""
            field.display = False
            self._focus_table()
        else:
            self.dismiss()

    # --- export ---------------------------------------------------------------------------------------------

    def action_export(self) -> None:
        """Ask for a file, and write it."""
        shown = self._seen()
        if shown is not None:
            form = FORMS[3] if self._tab == CURVES else FORMS[0]
            self.app.push_screen(
                ExportScreen(self.home, shown, form), lambda said: self.notify(said, markup=False) if said else None
            )

    def action_copy(self) -> None:
        """Copy the table as markdown."""
        shown = self._seen()
        if shown is not None:
            self.app.copy_to_clipboard(shown.text("markdown"))
            self.notify("copied as markdown", markup=False)

    def _seen(self) -> Shown | None:
        if self._compared is None or not self._compared.entries:
            self.notify("there is nothing to export yet", severity="warning", markup=False)
            return None
        return Shown(self._compared, self._tab, self._chosen)
