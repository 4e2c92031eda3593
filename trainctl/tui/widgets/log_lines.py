"""The lines of a log on the screen: scrolled, wrapped, coloured, with what a search has found."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.text import Text
from textual.cache import LRUCache
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from trainctl.tui.feed.log import SILENT, WIDTH, Page
from trainctl.tui.feed.pattern import Pattern
from trainctl.tui.widgets.unbroken import unbroken

BAD = re.compile(
    r"Traceback \(most recent call last\)|^\s+File \".*\", line \d+|^[\w.]*(Error|Exception|Interrupt)\b"
    r"|\b(ERROR|CRITICAL|FATAL)\b|\b(?i:error|failed|fatal):"
)
DOUBTFUL = re.compile(r"\b(?i:warn(ing)?)\b|\w+Warning\b")
STRIPS = 1000  # rendered lines that are kept


class LogLines(ScrollView):
    """Draws the lines it was given; one line of the log is one step of the scrollbar, wrapped or not.

    Following, the last line stands at the bottom; else the line that was scrolled to stands at the top.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--bad", "log--doubtful", "log--match", "log--here", "log--silent"}
    DEFAULT_CSS = """
    LogLines {
        height: 1fr; padding: 0 1; scrollbar-size: 0 1; overflow: auto scroll; background: $background;
        & > .log--bad { color: $text-error; }
        & > .log--doubtful { color: $text-warning; }
        & > .log--match { color: $text-accent; background: $accent-muted; text-style: underline; }
        & > .log--here { color: $accent; background: $background; text-style: bold reverse; }
        & > .log--silent { color: $text-muted; }
    }
    """
    ALLOW_SELECT = False

    class Moved(Message):
        """Other lines stand in sight."""

    def __init__(self) -> None:
        super().__init__()
        self.following, self.wrapped = True, False
        self.count = 0
        self._first = 0
        self._texts: tuple[str, ...] = ()
        self._generation = 0
        self._silent = False
        self._marked: Pattern | None = None
        self._here: int | None = None
        self._widest = 0
        self._placing = self._hidden = False
        self._rows: list[tuple[int, Strip]] | None = None
        self._strips: LRUCache[tuple[str, bool], Strip] = LRUCache(STRIPS)

    def show(self, page: Page) -> None:
        """Take the lines of a page."""
        before = (self._silent, [strip for _, strip in self.rows()])
        top = self._top + page.shift
        if page.generation != self._generation:
            self._generation, self._widest, top = page.generation, 0, 0
            self.following, self._here = True, None
        self._first, self._texts, self.count = page.first, page.lines, page.count
        self._silent = not page.count
        self._widest = max(self._widest, *map(cell_len, page.lines), 0)
        self._place(top)
        self._reveal()
        if (self._silent, [strip for _, strip in self.rows()]) != before:
            self.refresh()

    def follow(self) -> None:
        """Stay at the end from now on."""
        self.following = True
        self._place(self._top)
        self.refresh()
        self.post_message(self.Moved())

    def wrap(self) -> None:
        """Wrap long lines, or do so no longer."""
        self.wrapped = not self.wrapped
        self.scroll_to(x=0, force=True)
        self._place(self._top)
        self.refresh()

    def mark(self, pattern: Pattern | None, here: int | None) -> None:
        """Mark what matches, and in the line `here` more so; bring that line into sight."""
        if (pattern, here) == (self._marked, self._here):
            return
        self._strips.clear()
        moved = here != self._here
        self._marked, self._here, self._rows = pattern, here, None
        if here is not None and moved:
            self.following, self._hidden = False, True
            if not self._first_seen() <= here <= self._last_seen():
                self._place(max(0, here - self._height // 3))
            self._reveal()
            self.post_message(self.Moved())
        self.refresh()

    def _reveal(self) -> None:
        """Scroll sideways to a new match, once its line has been given."""
        at = -1 if self._here is None else self._here - self._first
        if not self._hidden or not 0 <= at < len(self._texts) or self.wrapped:
            return
        self._hidden = False
        found = self._marked.spans(self._texts[at][:WIDTH]) if self._marked else []
        if found:
            left, right = (cell_len(self._texts[at][:end]) for end in found[0])
            width, scrolled = self.scrollable_content_region.width, self.scroll_offset.x
            if left < scrolled or right > scrolled + width:
                self.scroll_to(x=0 if right <= width else right - width // 2, force=True)

    def wanted(self) -> tuple[int | None, int]:
        """The lines to ask for: three screens around what is in sight."""
        return (None if self.following else max(0, self._top - self._height)), 3 * self._height

    def lacking(self) -> bool:
        """Whether lines in sight have not been given."""
        last = min(self.count, self._top + self._height)
        return not self._first <= self._top <= last <= self._first + len(self._texts)

    def seen(self) -> tuple[int, int]:
        """The numbers of the first and of the last line in sight."""
        return self._first_seen(), self._last_seen()

    def rows(self) -> list[tuple[int, Strip]]:
        """What stands on the screen: number and strip of each row."""
        if self._rows is None:
            self._rows = self._laid_out()
        return self._rows

    def _laid_out(self) -> list[tuple[int, Strip]]:
        rows: list[tuple[int, Strip]] = []
        if self.following:
            for number in range(self.count - 1, -1, -1):
                if len(rows) >= self._height:
                    break
                rows = self._rows_of(number) + rows
            return rows[max(0, len(rows) - self._height) :]
        for number in range(self._top, self.count):
            if len(rows) >= self._height:
                break
            rows += self._rows_of(number)
        return rows[: self._height]

    def _rows_of(self, number: int) -> list[tuple[int, Strip]]:
        strip, width = self._strip(number), max(1, self.scrollable_content_region.width)
        if not self.wrapped:
            return [(number, strip)]
        length = strip.cell_length
        return [(number, part) for part in strip.divide([*range(width, length, width), length])] or [(number, strip)]

    def _strip(self, number: int) -> Strip:
        at = number - self._first
        if not 0 <= at < len(self._texts):
            return Strip([])  # asked for, and not yet there
        line, here = self._texts[at], number == self._here
        strip = self._strips.get((line, here))
        if strip is None:
            text = Text(line, no_wrap=True, end="")
            text.stylize(self.rich_style)
            kind = "log--bad" if BAD.search(line) else "log--doubtful" if DOUBTFUL.search(line) else ""
            if kind:
                text.stylize(self.get_component_rich_style(kind, partial=True))
            for span in self._marked.spans(line[:WIDTH]) if self._marked else ():
                style = self.get_component_rich_style("log--here" if here else "log--match")
                text.stylize(style, *span)
            strip = Strip(text.render(self.app.console), cell_len(line))
            self._strips[line, here] = strip
        return strip

    @unbroken
    def render_line(self, y: int) -> Strip:
        """A row."""
        width, style = self.scrollable_content_region.width, self.rich_style
        if self._silent and y == 0:
            quiet = self.get_component_rich_style("log--silent")
            return Strip([Segment(SILENT, quiet)]).crop_extend(0, width, style)
        rows = self.rows()
        if y >= len(rows):
            return Strip.blank(width, style)
        row, left = rows[y][1], 0 if self.wrapped else self.scroll_offset.x
        if row.cell_length <= left + width:
            return row.crop_extend(left, left + width, style)
        # Without a mark half a number would look like a number.
        return Strip.join([row.crop_extend(left, left + width - 1, style), Strip([Segment("…", style)])])

    @property
    def _top(self) -> int:
        return int(self.scroll_offset.y)

    @property
    def _height(self) -> int:
        return max(1, self.scrollable_content_region.height)

    def _first_seen(self) -> int:
        rows = self.rows()
        return rows[0][0] if rows else 0

    def _last_seen(self) -> int:
        rows = self.rows()
        return rows[-1][0] if rows else 0

    def _place(self, top: int) -> None:
        """Put the scrollbar where the lines are: at the line `top`, or where following has it."""
        self._rows = None
        over = self._height - 1 if self.wrapped else 0  # so that each line can stand at the top
        self._placing = True
        self.virtual_size = Size(0 if self.wrapped else self._widest, self.count + over)
        self.scroll_to(y=self._first_seen() if self.following else top, force=True)
        self._placing = False
        self._rows = None

    def scroll_to(self, x: float | None = None, y: float | None = None, **how: Any) -> None:
        """Scroll at once, never frame by frame."""
        super().scroll_to(x, y, **{**how, "animate": False})

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follow where one has scrolled to the end, and no longer where one has left it."""
        super().watch_scroll_y(old_value, new_value)
        if self._placing or round(old_value) == round(new_value):
            return
        self.following, self._rows = False, None
        rows = self.rows()
        below = sum(number == self.count - 1 for number, _ in rows)
        if rows and below >= len(self._rows_of(self.count - 1)):
            self.follow()
        self.post_message(self.Moved())

    def on_resize(self) -> None:
        """Stay at the end where that is followed."""
        self._place(self._top)
        self.refresh()
        self.post_message(self.Moved())

    def action_scroll_end(self) -> None:
        """Go to the end, and follow it."""
        self.follow()

    def notify_style_update(self) -> None:
        """Draw anew with other colours."""
        super().notify_style_update()
        self._strips.clear()
        self._rows = None
