"""The log pane: the end of a growing file, followed, or any other part of it, and a search; however large the file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Static

from trainctl.cli.common import printable
from trainctl.errors import UsageError
from trainctl.tui import keys
from trainctl.tui.feed.errors import explain
from trainctl.tui.feed.log import MATCHES, Found, LogFile, Page, Search
from trainctl.tui.feed.pattern import Pattern
from trainctl.tui.screens.live import LOW_BANDWIDTH, PERIOD
from trainctl.tui.widgets.log_lines import LogLines

if TYPE_CHECKING:
    from trainctl.tui.app import Dashboard


class LogView(Vertical):
    """Shows the file that `open` was given. It is read on a thread, a question at a time, only while it is seen."""

    DEFAULT_CSS = """
    LogView {
        height: 1fr;
        & > Horizontal { height: 1; background: $panel; padding: 0 1; }
        & .log-found { width: 1fr; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        & .log-place { width: auto; color: $text-muted; }
        & > Input { display: none; height: 1; background: $boost; }
        &.-searching > Input { display: block; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(keys.binding(key) for key in keys.KEYS if key.action.startswith("log(")),
        Binding("escape", "log('close')", "Close", show=False),
    ]

    @dataclass
    class Looked(Message):
        """An answer: a page if there is anything new, and how far the search is that went on, if any."""

        file: LogFile
        wanted: tuple[int | None, int]
        page: Page | None
        search: Search | None
        found: Found | None

    @dataclass
    class Failed(Message):
        """The file could not be read."""

        error: Exception

    app: Dashboard
    _file: LogFile | None = None
    _page: Page | None = None
    _search: Search | None = None
    _found: Found | None = None
    _wanted: Pattern | None = None  # looked for as soon as all lines are counted
    _mistake = ""  # in what was typed
    _busy = _again = False
    _asked = 0.0
    _last_error = ""

    def compose(self) -> ComposeResult:
        """Lines; below them what was found and where one is; the line to type in."""
        yield LogLines()
        with Horizontal():
            yield Static(classes="log-found", markup=False)
            yield Static(classes="log-place", markup=False)
        yield Input(placeholder="text or /regular expression/: enter finds it, esc closes", compact=True)

    @property
    def lines(self) -> LogLines:
        """The lines on the screen."""
        return self.query_one(LogLines)

    def on_mount(self) -> None:
        """Begin to ask."""
        self.set_interval(PERIOD, self._tick)

    def open(self, path: Path) -> None:
        """Show the file `path` from now on; if it is shown already, nothing changes."""
        if self._file is None or self._file.path != path:
            self._file, self._page = LogFile(path), None
            self._forget()
            self.lines.follow()
            self._ask()

    def search(self, typed: str) -> None:
        """Find text, or /a regular expression/, from the first line in sight on; UsageError if it cannot be read."""
        wanted = Pattern(typed)
        self._forget()
        self._wanted = wanted
        self._ask()

    def focus(self, scroll_visible: bool = True) -> Self:
        """Let the keys scroll the lines."""
        self.lines.focus(scroll_visible)
        return self

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Whether esc has something to close here; else it is the screen's."""
        if (action, parameters) == ("log", ("close",)):
            return bool(self._search or self._wanted or self.has_class("-searching"))
        return super().check_action(action, parameters)

    def action_log(self, what: str) -> None:
        """What the keys do: search, next, previous, follow, wrap, close."""
        deeds: dict[str, Callable[[], None]] = {
            "search": self._type, "next": self._next, "previous": partial(self._next, backwards=True),
            "follow": self.lines.follow, "wrap": self.lines.wrap, "close": self._close,
        }  # fmt: skip
        deeds[what]()

    def _type(self) -> None:
        self.add_class("-searching")
        self.screen.set_focus(self.query_one(Input))

    def _close(self) -> None:
        self.remove_class("-searching")
        self.lines.focus()
        self._forget()
        self._tell()

    def _forget(self) -> None:
        self._search, self._found, self._wanted, self._mistake = None, None, None, ""
        self.lines.mark(None, None)

    @on(Input.Changed)
    def _typing(self, event: Input.Changed) -> None:
        event.stop()
        self._mistake = ""
        self._tell()

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        if not event.value:
            self._close()
            return
        try:
            self.search(event.value)
        except UsageError as error:
            self._mistake = explain(error).replace("\n", " · ")
            self._tell()
            return
        self.remove_class("-searching")
        self.lines.focus()
        self._tell()

    def _next(self, *, backwards: bool = False) -> None:
        """Go to the next line that matches, from the one that was found or, if that is out of sight, from the top."""
        if self._file is None or self._search is None:
            if not self._wanted:
                self._type()
            return
        first, last = self.lines.seen()
        here = self._found.line if self._found else None
        if here is None or not first <= here <= last:
            here = first if backwards else first - 1
        if not self._search.go(here, backwards=backwards):
            self._search = Search(
                self._file, self._search.pattern, here + (-1 if backwards else 1), backwards=backwards
            )
        self._go_on(self._search.found)
        self._ask()

    def _go_on(self, found: Found) -> None:
        self._found = found
        if self._search and found.line is not None:
            self.lines.mark(self._search.pattern, found.line)
        self._tell()

    def _tick(self) -> None:
        if time.monotonic() - self._asked >= (LOW_BANDWIDTH if self.app.low_bandwidth else 0.0):
            self._ask()

    @on(LogLines.Moved)
    def _moved(self) -> None:
        self._tell()
        if self._page and self.lines.lacking():
            self._ask()

    def on_show(self) -> None:
        """Ask at once when the pane is shown."""
        self.call_after_refresh(self._ask)

    def _ask(self) -> None:
        """Look at the file, or once more after the look that is under way."""
        front = next((screen for screen in reversed(self.app.screen_stack) if not screen.is_modal), None)
        if self._file is None or front is not self.screen or not self.is_on_screen:
            return
        if self._busy:
            self._again = True
            return
        if self._wanted and self._page and self._page.counted == 1:
            self._search, self._wanted = Search(self._file, self._wanted, self.lines.seen()[0]), None
        self._busy, self._again, self._asked = True, False, time.monotonic()
        going = self._search if self._search and self._search.found.share < 1 else None
        self._look(self._file, self.lines.wanted(), going)

    @work(thread=True, exit_on_error=False)
    def _look(self, file: LogFile, wanted: tuple[int | None, int], search: Search | None) -> None:
        try:
            page = file.page(*wanted)
            self.post_message(self.Looked(file, wanted, page, search, search.step() if search else None))
        except Exception as error:
            self.post_message(self.Failed(error))

    def on_log_view_looked(self, message: Looked) -> None:
        """Show what is new, and ask at once for what is still missing."""
        message.stop()
        self._busy, self._last_error = False, ""
        if message.file is not self._file:
            self._ask()
            return
        if message.page:
            if self._page and message.page.generation != self._page.generation:
                self._forget()  # lines of a file that is no more
            self._page = message.page
            self.lines.show(message.page)
        if message.found and message.search is self._search:
            self._go_on(message.found)
        self._tell()
        unfinished = self._page is not None and self._page.counted < 1
        moved = self.lines.lacking() and self.lines.wanted() != message.wanted
        if self._again or unfinished or moved or self._wanted or (self._found is not None and self._found.share < 1):
            self._ask()

    def on_log_view_failed(self, message: Failed) -> None:
        """Tell of an error, once as long as it stays the same."""
        message.stop()
        self._busy, text = False, explain(message.error)
        if text != self._last_error:
            self._last_error = text
            self.notify(text, severity="error", markup=False)

    def _tell(self) -> None:
        """Write what was found, and where one is."""
        self._write(".log-found", self._result())
        page, (first, last) = self._page, self.lines.seen()
        if page is None or not page.count or self._mistake:  # which needs the room
            self._write(".log-place", "")
            return
        place = f"{spaced(first + 1)}–{spaced(last + 1)}" if first < last else spaced(first + 1)
        where = f"line {place} of {spaced(page.count)}" if page.counted == 1 else f"counting lines {page.counted:.0%}"
        self._write(".log-place", f"{where} · {'following' if self.lines.following else 'f follows'}")

    def _result(self) -> str:
        pattern = self._search.pattern if self._search else self._wanted
        if self._mistake or pattern is None:
            return self._mistake
        typed = printable(pattern.typed)
        if self._found is None:
            return f"“{typed}” is looked for once the lines are counted" if self._wanted else f"“{typed}”"
        found, keys_shown = self._found, "" if self._found.line is None else " · n/N"
        if found.share < 1:
            return f"“{typed}” {'found' if found.lines else 'searching'} · {found.share:.0%} searched{keys_shown}"
        if found.line is None:
            return f"“{typed}”: no match"
        if found.lines >= MATCHES:
            return f"“{typed}” in more than {spaced(MATCHES)} lines{keys_shown}"
        return f"“{typed}”: match {spaced(found.rank)} of {spaced(found.lines)}{keys_shown}"

    def _write(self, where: str, text: str) -> None:
        line = self.query_one(where, Static)
        if line.content != text:
            line.update(text)


def spaced(number: int) -> str:
    """A whole number, its thousands set apart."""
    return f"{number:,}".replace(",", " ")
