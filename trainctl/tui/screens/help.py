"""The keys, from the table that the bindings are made from, and what the marks mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from trainctl.tui import keys
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.once import OnceScreen
from trainctl.tui.text import GLYPHS, KINDS, color

MARKS = """\
natural, robust: accuracy in percent on the test set, of the best checkpoint; robust names its attack. \
While a run trains: v on the validation set, t on the test set. Their threat models stand with the run's results.
curve: the accuracy by which the best checkpoint is chosen, over the epochs; its height is the run's own.
†: our reading of what a method's authors leave open; the run's recipe says what.
In tables the arrows, page up, page down, home and end move, a click selects, a double click opens."""


class HelpScreen(ModalScreen[None], OnceScreen[None]):
    """Any of esc, ?, q leaves it."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q", "dismiss", "Back")]
    DEFAULT_CSS = """
    HelpScreen {
        #keys { layout: vertical; height: auto; }
        #keys Static { width: 1fr; height: auto; }
        &.-wide #keys { layout: horizontal; }
    }
    """

    def compose(self) -> ComposeResult:
        """One table a place: that where one is first, that of all places next."""
        below = next((screen for screen in reversed(self.app.screen_stack) if isinstance(screen, LiveScreen)), None)
        here = below.place if below else ""
        places = sorted(keys.PLACES, key=lambda place: (place != here, place != keys.EVERYWHERE))
        with VerticalScroll(classes="dialog wide", id="help"):
            with Container(id="keys"):
                for part in _halves(places):
                    yield Static(_table(part), markup=False)
            yield Static(Text(MARKS + "\n"), markup=False)
            yield Static(self._legend(), markup=False)

    def _legend(self) -> Text:
        legend = Text()
        for name, glyph in GLYPHS.items():
            legend.append(f"{glyph} {name}  ", color(KINDS[name], self.app.theme))
        return legend


def _halves(places: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The places in two columns of about the same height, in their order."""
    heights = [2 + sum(key.place == place for key in keys.KEYS) for place in places]
    first = min(range(1, len(places) + 1), key=lambda count: abs(sum(heights[:count]) - sum(heights[count:])))
    return places[:first], places[first:]


def _table(places: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(justify="right", no_wrap=True)
    for place in places:
        table.add_row(Text(), Text(place, "bold"))
        for key in keys.KEYS:
            if key.place == place:
                table.add_row(Text(key.shown, "bold"), Text(key.help))
        table.add_row()
    return table
