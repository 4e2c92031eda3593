"""The table of the comparison: a cursor over pairs, a column cursor, and lines that are drawn when they are seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from trainctl.compare.grid import Cell, Grid, Row
from trainctl.tui import keys
from trainctl.tui.widgets.comparison_lines import GAP, Layout, Line, fitted, lay_out
from trainctl.tui.widgets.unbroken import unbroken

BAR = "▌"


class ComparisonTable(ScrollView, can_focus=True):
    """Draws a grid. The label and n stay where they are while the numbers scroll sideways."""

    DEFAULT_CSS = """
    ComparisonTable {
        height: 1fr;
        scrollbar-size: 1 1;
        & > .comparison--title { text-style: bold; }
        & > .comparison--dim { text-style: dim; }
        & > .comparison--head { text-style: dim underline; }
        & > .comparison--column { color: $text-primary; text-style: bold reverse; }
        & > .comparison--best { text-style: bold; }
        & > .comparison--second { text-style: underline; }
        & > .comparison--better { color: $text-success; text-style: bold; }
        & > .comparison--worse { color: $text-error; text-style: bold; }
        & > .comparison--paper { text-style: dim italic; }
        & > .comparison--cursor { background: $panel; }
        & > .comparison--bar { color: $primary; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"comparison--{name}"
        for name in (
            "title", "dim", "head", "column", "best", "second", "better", "worse", "paper", "cursor", "bar",
        )
    }  # fmt: skip
    # The table scrolls by these keys before its screen hears of them.
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            keys.binding(key)
            for key in keys.KEYS
            if key.place == keys.COMPARE and key.action.startswith(("move", "column"))
        ),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "move(-100000)", show=False),
        Binding("end", "move(100000)", show=False),
    ]

    @dataclass
    class Moved(Message):
        """The cursor is on another entry."""

        entry: int

    @dataclass
    class Picked(Message):
        """A heading (`column`) or a pair was chosen with the mouse."""

        column: str = ""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._given: tuple[Grid, Mapping[int, Sequence[Row]], tuple[str, ...]] = (Grid((), ()), {}, ())
        self._layout = Layout()
        self._cursor = 0
        self._column = 0

    @property
    def entry(self) -> int:
        """The entry under the cursor; -1 for none."""
        entries = self._layout.entries
        return entries[self._cursor] if self._cursor < len(entries) else -1

    @property
    def column(self) -> str:
        """Name of the column under the column cursor, or ""."""
        columns = self._layout.columns
        return columns[self._column].name if self._column < len(columns) else ""

    def show(
        self, grid: Grid, seeds: Mapping[int, Sequence[Row]], metrics: Sequence[str], entry: int | None = None
    ) -> None:
        """Draw `grid` with the cursor on `entry` (None: where it is); see `lay_out`. The same twice draws nothing."""
        given = (grid, dict(seeds), tuple(metrics))
        if given[0] is not self._given[0] or given[1:] != self._given[1:]:
            self._given = given
            self._lay_out()
            self.call_after_refresh(self._scroll_to_cursor)
        if entry is not None:
            self.go_to(entry)

    def go_to(self, entry: int) -> None:
        """Put the cursor on an entry, if it is there, and say nothing of it."""
        if entry in self._layout.spans and entry != self.entry:
            self._cursor = self._layout.entries.index(entry)
            self.refresh()
        self._scroll_to_cursor()

    def on_resize(self) -> None:
        """The captions are wrapped anew, and what was hidden could not be scrolled to."""
        self._lay_out()
        self.call_after_refresh(self._scroll_to_cursor)

    def _lay_out(self) -> None:
        self._layout = lay_out(*self._given, self.size.width)
        self._cursor = min(self._cursor, max(0, len(self._layout.spans) - 1))
        self._column = min(self._column, max(0, len(self._layout.columns) - 1))
        self.virtual_size = Size(self._layout.width, len(self._layout.lines))
        self.refresh()

    # --- drawing --------------------------------------------------------------------------------------------

    @unbroken
    def render_line(self, y: int) -> Strip:
        """The line `y` of the window; the first shows the headings where those have been scrolled away."""
        across, down = self.scroll_offset
        lines, width = self._layout.lines, self.size.width
        number = y + down
        if number >= len(lines):
            return Strip.blank(width, self.rich_style)
        line = lines[number]
        head = self._layout.heads[line.section]
        if y == 0 and number > head:
            line = lines[head]
        return self._draw(line, across, width).apply_style(self.rich_style)

    def _draw(self, line: Line, across: int, width: int) -> Strip:
        if line.kind in ("", "title", "caption"):
            text = Segment(" " + line.text, self._style("title" if line.kind == "title" else "dim"))
            return Strip([text]).adjust_cell_length(width)
        chosen = line.entry >= 0 and line.entry == self.entry
        layout = self._layout
        row = {"paper": self._style("paper"), "seed": self._style("dim"), "seed delta": self._style("dim")}.get(
            line.kind, Style.null()
        )
        frozen = [
            Segment(BAR if chosen else " ", self._style("bar")),
            Segment(fitted(line.text, layout.label) + " ", row),
            Segment(("n" if line.kind == "head" else line.n).rjust(layout.n) + " " * GAP, self._style("dim")),
        ]
        shown = layout.whole(across, width)
        strip = Strip([*frozen, *(part for index in shown for part in self._cell(line, index, row))])
        strip = strip.adjust_cell_length(width)
        return strip.apply_style(self._style("cursor")) if chosen else strip

    def _cell(self, line: Line, index: int, row: Style) -> list[Segment]:
        column = self._layout.columns[index]
        cell = line.cell(column.name)
        gap = Segment(" " * GAP)
        if line.kind == "head":
            style = self._style("column" if index == self._column else "head")
            return [Segment(column.head(cell or Cell()), style), gap]
        if cell is None:
            return [Segment(" " * (column.width + GAP))]
        value, marks, margin = column.text(cell)
        name = "best" if cell.best else "second" if cell.second else cell.clear or ("" if cell.value else "dim")
        style = row + self._style(name) if name else row
        bare = value.lstrip()
        return [
            Segment(value[: len(value) - len(bare)]), Segment(bare, style), Segment(marks, row),
            Segment(margin, self._style("dim")), gap,
        ]  # fmt: skip

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"comparison--{name}", partial=True)

    # --- moving ---------------------------------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        """Move the cursor by so many pairs."""
        self._go(self._cursor + by)

    def action_page(self, by: int) -> None:
        """Move the cursor by about a window."""
        entries = self._layout.entries
        if entries:
            goal = self._layout.spans[self.entry][0] + by * max(1, self.size.height - 2)
            self._go(min(range(len(entries)), key=lambda at: abs(self._layout.spans[entries[at]][0] - goal)))

    def action_column(self, by: int) -> None:
        """Move the column cursor, and scroll sideways to it."""
        columns = self._layout.columns
        if columns:
            self._column = min(max(self._column + by, 0), len(columns) - 1)
            left = sum(column.width + GAP for column in columns[: self._column])
            room = self.size.width - self._layout.frozen
            across = min(left, max(self.scroll_offset.x, left + columns[self._column].width + GAP - room))
            self.scroll_to(x=across, animate=False)
            self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Go to the pair, or to the column whose heading it is; a second click picks it."""
        line = self._line_at(event.y)
        if line is None:
            return
        if line.kind == "head":
            left = self._layout.frozen
            for index in self._layout.whole(self.scroll_offset.x, self.size.width):
                column = self._layout.columns[index]
                if left <= event.x < left + column.width + GAP:
                    self._column = index
                    self.refresh()
                    self.post_message(self.Picked(column.name))
                left += column.width + GAP
        elif line.entry >= 0:
            self._go(self._layout.entries.index(line.entry))
            if event.chain > 1:
                self.post_message(self.Picked())

    def _line_at(self, y: int) -> Line | None:
        number = y + self.scroll_offset.y
        if number >= len(self._layout.lines):
            return None
        line = self._layout.lines[number]
        head = self._layout.heads[line.section]
        return self._layout.lines[head] if y == 0 and number > head else line

    def _go(self, cursor: int) -> None:
        cursor = min(max(cursor, 0), max(0, len(self._layout.spans) - 1))
        if cursor != self._cursor and self.entry >= 0:
            self._cursor = cursor
            self._scroll_to_cursor()
            self.refresh()
            self.post_message(self.Moved(self.entry))

    def _scroll_to_cursor(self) -> None:
        """Show the pair below the headings; the first with all that stands above it."""
        if self.entry < 0:
            return
        first, last = self._layout.spans[self.entry]
        top = 0 if self._cursor == 0 else first - 1
        region = Region(self.scroll_offset.x, top, 1, min(last - top + 1, max(1, self.size.height)))
        self.scroll_to_region(region, animate=False)
