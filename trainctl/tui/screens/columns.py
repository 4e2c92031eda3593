"""Choosing the columns of the runs table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from trainctl.tui.columns import COLUMNS, DEFAULT
from trainctl.tui.screens.once import OnceScreen

HINT = """\
space shows or hides, shift+↑ and shift+↓ move, r: the usual ones
enter takes it, esc leaves. Without room the last ones are left out."""


class ColumnsScreen(ModalScreen[tuple[str, ...]], OnceScreen[tuple[str, ...]]):
    """Gives the keys of the columns in their order, () for the usual ones, or None if the person left."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Leave"),
        Binding("enter", "take", "Take", priority=True),
        Binding("space", "tick", "Show or hide"),
        Binding("shift+up", "shift(-1)", "Up"),
        Binding("shift+down", "shift(1)", "Down"),
        Binding("r", "reset", "The usual ones"),
    ]
    DEFAULT_CSS = """
    ColumnsScreen {
        OptionList { height: 1fr; background: $surface; text-wrap: nowrap; text-overflow: ellipsis; }
        #hint { color: $text-muted; }
    }
    """

    def __init__(self, shown: Sequence[str]) -> None:
        super().__init__()
        self._shown = [key for key in shown if key in COLUMNS] or list(DEFAULT)
        self._order = [*self._shown, *(key for key in COLUMNS if key not in self._shown)]

    def compose(self) -> ComposeResult:
        """The columns: shown ones first, in their order."""
        with Vertical(classes="dialog wide", id="columns"):
            yield Static(Text("Columns", "bold"), markup=False)
            yield OptionList(*map(self._option, self._order), markup=False, compact=True)
            yield Static(HINT, id="hint", markup=False)

    def _option(self, key: str) -> Option:
        column = COLUMNS[key]
        text = Text(f"{'[✓]' if key in self._shown else '[ ]'} {column.heading:<13}")
        return Option(text.append(column.help, "dim"), id=key)

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    def on_option_list_option_selected(self) -> None:
        """A click."""
        self.action_tick()

    def action_tick(self) -> None:
        """Show the column, or hide it; the last one stays."""
        at = self._list.highlighted
        if at is None:
            return
        key = self._order[at]
        if key not in self._shown:
            self._shown.append(key)
        elif len(self._shown) > 1:
            self._shown.remove(key)
        self._list.replace_option_prompt_at_index(at, self._option(key).prompt)

    def action_shift(self, by: int) -> None:
        """Move the column up or down."""
        at = self._list.highlighted
        if at is None or not 0 <= at + by < len(self._order):
            return
        order = self._order
        order[at], order[at + by] = order[at + by], order[at]
        for place in (at, at + by):
            self._list.replace_option_prompt_at_index(place, self._option(order[place]).prompt)
        self._list.highlighted = at + by

    def action_reset(self) -> None:
        """The usual columns, as many as there is room for."""
        self.dismiss(())

    def action_take(self) -> None:
        """Leave with the columns as they stand."""
        taken = tuple(key for key in self._order if key in self._shown)
        self.dismiss(() if taken == DEFAULT else taken)

    def action_leave(self) -> None:
        """Leave without an answer."""
        self.dismiss(None)
