"""A question to be answered with one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from trainctl.cli.common import printable
from trainctl.errors import UsageError
from trainctl.tui.feed.errors import explain
from trainctl.tui.screens.once import OnceScreen

KEYS = "enter takes it, esc leaves"


class PromptScreen(ModalScreen[str], OnceScreen[str]):
    """Gives the line, or None if the person left. What `check` raises (UsageError) is shown as one types."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave")]
    DEFAULT_CSS = """
    PromptScreen {
        #hint { color: $text-muted; }
        Input { margin: 1 0; }
        #wrong { height: auto; max-height: 4; color: $text-muted; }
        #wrong.-wrong { color: $text-error; }
    }
    """

    def __init__(self, title: str, value: str = "", hint: str = "", check: Callable[[str], object] = str) -> None:
        super().__init__()
        self._title = Text(printable(title), "bold")
        self.value = printable(value).replace("\n", " ")
        """What stands in the line at first."""
        self._hint = Text(printable(hint))
        self._check = check

    def compose(self) -> ComposeResult:
        """Title, hint, the line, and what is wrong with it."""
        with Vertical(classes="dialog"):
            yield Static(self._title, markup=False)
            yield Static(self._hint, id="hint", markup=False)
            yield Input(self.value, id="line", select_on_focus=False, compact=True)
            yield Static(KEYS, id="wrong", markup=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say what is wrong."""
        self._accepts(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Leave with the line, unless something is wrong with it."""
        if self._accepts(event.value):
            self.dismiss(event.value)

    def _accepts(self, value: str) -> bool:
        wrong = ""
        try:
            self._check(value)
        except UsageError as error:
            wrong = explain(error)
        said = self.query_one("#wrong", Static)
        said.update(Text(wrong or KEYS))
        said.set_class(bool(wrong), "-wrong")
        return not wrong

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)
