"""The table of runs: of ten thousand lines it holds a few screens, and asks for others when it is scrolled to them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from trainctl.tui.columns import GAP, SHORT, Column, Look, chosen, fitted, sorted_column
from trainctl.tui.feed.runs import Line, Overview, Row, key
from trainctl.tui.widgets.unbroken import unbroken

HEAD = 1  # lines above the first run
GUTTER = 2  # characters for the cursor and the mark
Cells = dict[str, Text]


class RunsTable(ScrollView, can_focus=True, inherit_bindings=False):
    """Draws the lines it was given; `key` tells a line from another, so that the cursor stays on its run."""

    DEFAULT_CSS = """
    RunsTable {
        height: 1fr; overflow-x: hidden; scrollbar-gutter: stable; scrollbar-size-vertical: 1;
        & > .runs--head { background: $panel; color: $text-muted; text-style: bold; }
        & > .runs--cursor { background: $primary 25%; }
        & > .runs--dim { color: $text-muted; }
        & > .runs--mark { color: $accent; text-style: bold; }
        &:focus > .runs--cursor { background: $block-cursor-background; color: $block-cursor-foreground; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"runs--head", "runs--cursor", "runs--dim", "runs--mark"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "to(0)", "First", show=False),
        Binding("end", "to(-1)", "Last", show=False),
    ]

    class Moved(Message):
        """The cursor stands elsewhere, or lines are seen that are not there yet."""

    class Opened(Message):
        """A line was clicked twice."""

    @dataclass
    class Headed(Message):
        """The heading of a column was clicked."""

        column: Column

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._answer: Overview | None = None
        self._columns: tuple[str, ...] = ()
        self._marked: frozenset[str] = frozenset()
        self._at, self._anchor = 0, ""
        self._layout: object = None
        self._arranged: Overview | None = None
        self._cells: dict[str, tuple[Line, Cells]] = {}
        self._needed: dict[str, int] = {}
        self._widths: dict[str, int] = {}
        self._strips: dict[int, tuple[tuple[object, ...], Strip]] = {}

    @property
    def row_count(self) -> int:
        """How many lines there are, seen or not."""
        return self._answer.window.lines if self._answer else 0

    @property
    def cursor_row(self) -> int:
        """The line of the cursor, from 0."""
        return self._at

    @property
    def here(self) -> str:
        """What the cursor stands on (`feed.runs.key`); "" if that is not known yet."""
        return self._anchor

    @property
    def line(self) -> Line | None:
        """The line under the cursor, if there is one and it is held."""
        return self._line(self._at)

    @property
    def selected(self) -> str:
        """Id of the run under the cursor, or ""."""
        line = self.line
        return line.run.id if isinstance(line, Row) else ""

    @property
    def wanted(self) -> tuple[int, int]:
        """First line and number of the lines to hold: as now, until the scroll comes near to their end."""
        page, first = self._page, self.scroll_offset.y
        held, size = self._held
        last = min(self.row_count, first + page + page // 2)
        if size >= 3 * page and held <= max(0, first - page // 2) and last <= held + size:
            return held, size
        return max(0, first - page), max(60, 3 * page)

    @property
    def shown_columns(self) -> list[Column]:
        """The columns that there is room for."""
        return [column for column in chosen(self._columns) if column.key in self._widths]

    def written(self) -> dict[str, list[str]]:
        """The cells of the lines that are held, as they are written."""
        self._arrange()
        return {
            name: [cells[column.key].plain.strip() for column in self.shown_columns]
            for name, (_, cells) in self._cells.items()
        }

    def choose(self, columns: tuple[str, ...]) -> None:
        """Show these columns; none means those that are usual."""
        self._columns = columns
        self.refresh()

    def mark(self, marked: frozenset[str]) -> None:
        """Mark the runs of these ids, and no others."""
        self._marked = marked
        self.refresh()

    def to_top(self) -> None:
        """Put the cursor on the first line, whatever will stand there."""
        self._at, self._anchor = 0, ""
        self.scroll_to(y=0, animate=False)

    def to_line(self, anchor: str) -> None:
        """Put the cursor on the line of that key as soon as it is known where it stands."""
        self._anchor = anchor

    def show(self, answer: Overview) -> None:
        """Show an answer: the lines that changed are drawn again, and no others."""
        moved, head = self._placed(answer) - self._at, self._head
        page, first = self._page, self.scroll_offset.y
        seen = first <= self._at < first + page
        self._answer, self._at = answer, self._at + moved
        self._anchor = key(self.line) if self.line else self._anchor
        self.virtual_size = Size(self.size.width, self.row_count + HEAD)
        # At the very top new runs are to be seen; elsewhere the lines keep their places on the screen.
        if first and moved:
            self.scroll_to(y=first + moved, animate=False)
        if seen:
            self._follow()
        before = self._strips
        self._arrange()
        if self._head != head:
            self.refresh(Region(0, 0, self.size.width, HEAD))
        top = self.scroll_offset.y
        for line in range(top, top + page):
            if before.get(line, (None,))[0] != self._tag(line):
                self.refresh(Region(0, line - top + HEAD, self.size.width, 1))
        self._ask()

    @unbroken
    def render_line(self, y: int) -> Strip:
        """One line of the screen: the headings, a run, or nothing."""
        self._arrange()
        if y < HEAD:
            return self._drawn_head()
        line = self.scroll_offset.y + y - HEAD
        tag = self._tag(line)
        found = self._strips.get(line)
        if found is None or found[0] != tag:
            found = self._strips[line] = (tag, self._drawn(line))
        return found[1]

    def notify_style_update(self) -> None:
        """Another theme: all is drawn anew."""
        self._layout = None
        super().notify_style_update()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Ask for the lines that come into sight."""
        super().watch_scroll_y(old_value, new_value)
        self._ask()

    def on_resize(self) -> None:
        """There may be room for other columns and more lines."""
        self._follow()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """Sort by a heading, go to a line, or open it."""
        if event.y < HEAD:
            left = GUTTER
            for column in self.shown_columns:
                right = left + self._widths[column.key]
                if left <= event.x < right + GAP:
                    self.post_message(self.Headed(column))
                left = right + GAP
        elif (line := self.scroll_offset.y + event.y - HEAD) < self.row_count:
            self._go(line)
            if event.chain == 2:
                self.post_message(self.Opened())

    def action_move(self, by: int) -> None:
        """So many lines down."""
        self._go(self._at + by)

    def action_page(self, by: int) -> None:
        """So many pages down."""
        self._go(self._at + by * self._page)

    def action_to(self, line: int) -> None:
        """To a line; -1 is the last."""
        self._go(line if line >= 0 else self.row_count + line)

    def _ask(self) -> None:
        """Ask for lines if some are seen, or nearly seen, that are not held."""
        if self._answer and self.wanted != self._held:
            self.post_message(self.Moved())

    @property
    def _held(self) -> tuple[int, int]:
        return (self._answer.window.offset, self._answer.asked.size) if self._answer else (0, 0)

    @property
    def _page(self) -> int:
        return max(1, self.size.height - HEAD)

    def _line(self, number: int) -> Line | None:
        if self._answer is None:
            return None
        at = number - self._answer.window.offset
        return self._answer.lines[at] if 0 <= at < len(self._answer.lines) else None

    def _go(self, line: int) -> None:
        line = max(0, min(line, self.row_count - 1))
        if line == self._at:
            return
        for number in (self._at, line):
            self.refresh_line(number + HEAD)
        self._at = line
        self._anchor = key(self.line) if self.line else ""
        self._follow()
        self.post_message(self.Moved())

    def _follow(self) -> None:
        """Scroll so that the cursor is seen."""
        first = self.scroll_offset.y
        if not first <= self._at < first + self._page:
            self.scroll_to(y=self._at if self._at < first else self._at - self._page + 1, animate=False)

    def _placed(self, answer: Overview) -> int:
        """Where the cursor stands in `answer`; it may have moved since that was asked."""
        keys = [key(line) for line in answer.lines]
        if self._anchor in keys:
            return answer.window.offset + keys.index(self._anchor)
        if self._anchor == answer.asked.anchor:
            return answer.at if self._at == answer.asked.at else min(self._at, max(0, answer.window.lines - 1))
        return max(0, min(self._at + answer.at - answer.asked.at, answer.window.lines - 1))

    def _arrange(self) -> None:
        """Write the cells of lines that changed, and share out the width among the columns."""
        answer, width = self._answer, self.size.width
        if answer is None:
            return
        view = answer.asked.view
        layout = (self._columns, width, view, self.app.theme)
        if layout == self._layout and answer is self._arranged:
            return
        if layout != self._layout:
            self._cells, self._needed = {}, {}
        if answer.minute != (self._arranged.minute if self._arranged else 0):
            self._cells = {}
        self._layout = layout
        columns = chosen(self._columns)
        look = Look(self.app.theme, time.time(), width < SHORT, view.opened, bool(view.group))
        before, self._cells = self._cells, {}
        fresh: list[dict[str, Text]] = []
        for line in answer.lines:
            found = before.get(key(line))
            if found is None or found[0] != line:
                found = line, {column.key: column.cell(line, look) for column in columns}
                fresh.append(found[1])
            self._cells[key(line)] = found
        by = sorted_column(columns, view.sort)
        for column in columns:
            longest = max((cells[column.key].cell_len for cells in fresh), default=0)
            longest = max(min(longest, column.widest), len(column.heading) + (column is by))
            # Columns only grow while one scrolls, so that they do not jump to and fro.
            self._needed[column.key] = max(self._needed.get(column.key, 0), longest)
        self._arranged = answer
        widths = fitted(columns, self._needed, width - GUTTER, default=not self._columns)
        if widths != self._widths:
            self._widths = widths
            self.refresh()

    def _tag(self, number: int) -> tuple[object, ...]:
        """What the drawing of a line depends on."""
        line = self._line(number)
        cells = self._cells[key(line)][1] if line else None
        cursor = number == self._at and 1 + self.has_focus
        return cells, self._is_marked(line), cursor, self._layout, tuple(self._widths.items())

    def _is_marked(self, line: Line | None) -> bool:
        return isinstance(line, Row) and line.run.id in self._marked

    def _drawn(self, number: int) -> Strip:
        if number >= self.row_count:
            nothing = number == 1 and self._answer is not None and not self.row_count
            return self._strip(Text(f"  {self._nothing()}" if nothing else "", self._style("dim")), self.rich_style)
        line, here = self._line(number), number == self._at
        text = Text("›" if here else " ").append("✓" if self._is_marked(line) else " ", self._style("mark"))
        if line is None:
            text.append("…", self._style("dim"))
        else:
            cells = self._cells[key(line)][1]
            for column in self.shown_columns:
                text.append_text(_fitted(cells[column.key], self._widths[column.key], right=column.right)).append(" ")
        if here and self.has_focus:  # one colour on the cursor, since others may not stand out from it
            text = Text(text.plain)
        return self._strip(text, self._style("cursor") if here else self.rich_style)

    def _drawn_head(self) -> Strip:
        text = Text(" " * GUTTER)
        for column, heading in zip(self.shown_columns, self._head, strict=True):
            text.append_text(_fitted(Text(heading), self._widths[column.key], right=column.right)).append(" ")
        return self._strip(text, self._style("head"))

    @property
    def _head(self) -> list[str]:
        """The headings, with a mark at the one that is sorted by."""
        sort = self._answer.asked.view.sort if self._answer else ""
        by = sorted_column(chosen(self._columns), sort)
        mark = "▼" if sort.startswith("-") else "▲"
        return [column.heading + mark * (column is by) for column in self.shown_columns]

    def _strip(self, text: Text, style: Style) -> Strip:
        strip = Strip(text.render(self.app.console)).adjust_cell_length(self.size.width)
        return strip.apply_style(style)

    def _style(self, name: str) -> Style:
        # dim and mark are laid over the ground of the line, which may be the cursor's.
        return self.get_component_rich_style(f"runs--{name}", partial=name in ("dim", "mark"))

    def _nothing(self) -> str:
        filtered = self._answer is not None and self._answer.asked.view.filtered
        return "No run fits the filter; esc clears it." if filtered else "All runs are archived; h shows them."


def _fitted(cell: Text, width: int, *, right: bool) -> Text:
    """A cell as wide as its column."""
    cell = cell.copy()
    cell.truncate(width, overflow="ellipsis")
    missing = width - cell.cell_len
    if right:
        cell.pad_left(missing)
    else:
        cell.pad_right(missing)
    return cell
