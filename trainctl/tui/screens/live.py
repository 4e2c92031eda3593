"""The base of screens that ask again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from textual import work
from textual.message import Message

from trainctl.tui.feed.errors import explain
from trainctl.tui.screens.once import OnceScreen

if TYPE_CHECKING:
    from trainctl.tui.app import Dashboard


PERIOD = 0.45  # seconds between two questions, so that a line of an engine is seen within half a second
LOW_BANDWIDTH = 1.0  # the same where each redraw travels over a slow line


class LiveScreen(OnceScreen[None]):
    """Asks `question` on a thread, one at a time and only while it is seen, and gives the answer to `show`.

    A question that finds nothing new answers None, and nothing is drawn.
    """

    @dataclass
    class Answered(Message):
        """An answer came."""

        answer: Any

    @dataclass
    class Failed(Message):
        """A question or an act failed."""

        error: Exception

    @dataclass
    class Acted(Message):
        """An act is done; `said` is what to tell."""

        said: str

    place: ClassVar[str] = ""
    """Of the key table; the palette lists its keys."""
    period = PERIOD
    _busy = False
    _again = False
    _last_error = ""
    _shown: Any = None
    _asked = 0.0
    app: Dashboard

    def question(self) -> Callable[[], Any]:
        """What to call on the thread; it holds all that it needs of the screen's state."""
        raise NotImplementedError

    def show(self, answer: Any) -> None:
        """Show an answer."""
        raise NotImplementedError

    def on_mount(self) -> None:
        """Begin to ask."""
        self.set_interval(self.period, self._tick)
        self.load()

    def on_screen_resume(self) -> None:
        """Ask at once when the screen comes to the front."""
        self.load()

    def on_resize(self) -> None:
        """Draw the next answer in any case."""
        self._shown = None

    def _tick(self) -> None:
        if time.monotonic() - self._asked >= (LOW_BANDWIDTH if self.app.low_bandwidth else 0.0):
            self.load()

    def load(self) -> None:
        """Ask, or once more when the question under way has been answered."""
        # A dialog lets the screen below it be seen; any other screen hides it.
        if next((screen for screen in reversed(self.app.screen_stack) if not screen.is_modal), None) is not self:
            return
        if self._busy:
            self._again = True
            return
        self._busy, self._asked = True, time.monotonic()
        self._ask(self.question())

    def act(self, deed: Callable[[], str]) -> None:
        """Do something on a thread; what it returns is told, also if the screen has been left meanwhile."""
        self._act(self.app, self.app.under_way(deed))

    @work(thread=True, exit_on_error=False)
    def _ask(self, question: Callable[[], Any]) -> None:
        try:
            self.post_message(self.Answered(question()))
        except Exception as error:
            self.post_message(self.Failed(error))

    @work(thread=True, exit_on_error=False)
    def _act(self, app: Dashboard, deed: Callable[[], str]) -> None:
        try:
            said = deed()
        except Exception as error:
            if not self.post_message(self.Failed(error)):
                app.call_later(app.notify, explain(error, app.home), severity="error", markup=False)
        else:
            if not self.post_message(self.Acted(said)):
                app.call_later(app.notify, said, markup=False)

    def on_live_screen_answered(self, message: Answered) -> None:
        """Show the answer."""
        self._busy, self._last_error = False, ""
        # A redraw that changes nothing still costs, most of all over a network.
        if message.answer is not None and message.answer != self._shown:
            self._shown = message.answer
            try:
                self.show(message.answer)
            except Exception as error:  # a mistake of ours must not take the screen away from a person's runs
                self.on_live_screen_failed(self.Failed(error))
        if self._again:
            self._again = False
            self.load()

    def on_live_screen_failed(self, message: Failed) -> None:
        """Tell of an error, once as long as it stays the same."""
        self._busy = False
        text = explain(message.error, self.app.home)
        if text != self._last_error:
            self._last_error = text
            self.notify(text, severity="error", markup=False)

    def on_live_screen_acted(self, message: Acted) -> None:
        """Tell what was done, and look again."""
        self.notify(message.said, markup=False)
        self.load()
