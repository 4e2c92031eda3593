"""The keys, from the table that the bindings are made from, and what the marks mean."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from trainctl.cli import words
from trainctl.tui import keys
from trainctl.tui.text import GLYPHS

MARKS = """\
natural, robust: accuracy in percent on the test set, of the best checkpoint;
  robust names its attack. While a run trains: v on the validation set,
  t on the test set. Their threat models stand in the run's recipe tab.
†: our reading of what a method's authors leave open; the recipe tab says what."""


class HelpScreen(ModalScreen[None]):
    """Any of esc, ?, q leaves it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "Back")]

    def compose(self) -> ComposeResult:
        """One table a place."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for place in keys.PLACES:
            table.add_row(Text(), Text(place, "bold"))
            for key in keys.KEYS:
                if key.place == place:
                    table.add_row(Text(f"{key.shown:>4}", "cyan"), Text(key.help))
        legend = Text()
        for name, glyph in GLYPHS.items():
            legend.append(f"{glyph} {name}  ", words.STYLES[name])
        with VerticalScroll(classes="dialog wide"):
            yield Static(table, markup=False)
            yield Static(Text("\n" + MARKS + "\n"), markup=False)
            yield Static(legend, markup=False)
