"""A question to be answered with yes or no."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from trainctl.cli.common import printable
from trainctl.tui.feed.errors import explain
from trainctl.tui.screens.once import OnceScreen

WAIT = "…"


class ConfirmScreen(ModalScreen[bool], OnceScreen[bool]):
    """Gives True for yes. No is what enter means, so that nothing is lost by haste.

    A `warning` that takes a while to find out is called on a thread, and there is no yes before it has been read.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
        Binding("left,right", "app.focus_next", "Other"),
    ]
    DEFAULT_CSS = """
    ConfirmScreen {
        #question { max-height: 3; }
        #warning { height: auto; max-height: 40vh; margin: 1 0; }
    }
    """

    def __init__(self, question: str, warning: str | Callable[[], str]) -> None:
        super().__init__()
        self._question = Text(printable(question), "bold")
        self._warning = warning
        self._known = isinstance(warning, str)

    def compose(self) -> ComposeResult:
        """The question and two buttons."""
        said = self._warning if isinstance(self._warning, str) else WAIT
        with Vertical(classes="dialog"):
            yield Static(self._question, id="question", markup=False)
            with VerticalScroll(id="warning", can_focus=False):
                yield Static(Text(printable(said)), id="said", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("No (n)", id="no")
                yield Button("Yes (y)", id="yes", variant="warning", disabled=not self._known)

    def on_mount(self) -> None:
        """No has the focus."""
        self.query_one("#no").focus()
        if not isinstance(self._warning, str):
            self.run_worker(self._find_out(self._warning), exit_on_error=False)

    async def _find_out(self, warning: Callable[[], str]) -> None:
        try:
            said = await asyncio.to_thread(warning)
        except Exception as error:
            self.query_one("#said", Static).update(Text(explain(error)))
            return
        self.query_one("#said", Static).update(Text(printable(said)))
        self.query_one("#yes").disabled = False
        self._known = True

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        self.action_answer(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """Answer and leave."""
        if self._known or not yes:
            self.dismiss(yes)
