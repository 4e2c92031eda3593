"""The recipes to choose from, and what the one under the cursor is."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import Static

from trainctl.cli.common import printable
from trainctl.tui.feed.launch import Offer, about, span
from trainctl.tui.widgets.lines import Lines, Piece

NAME, DATASET, METHOD, EPOCHS, PRICE = 27, 14, 10, -7, -9
WIDE, WIDER = 62, 100  # widths from which the data set and the title have room


class OfferList(Lines[Offer]):
    """A line a recipe."""

    def key(self, item: Offer) -> str:
        """The recipe, as the command line is given it."""
        return item.recipe

    def heading(self, width: int) -> Sequence[Piece]:
        """Names of the columns."""
        return self._columns(width, "recipe", "data set", "method", "epochs", "price", "title", "")

    def pieces(self, item: Offer, width: int) -> Sequence[Piece]:
        """Name, data set, method, epochs, price, title."""
        if item.mistakes:
            return [Piece(f" {item.recipe}", "", _name_width(width)), Piece(f"✘ {item.mistakes}", "bad")]
        if not item.read:
            return [Piece(f" {item.recipe}", "", _name_width(width)), Piece("…", "dim")]
        price = span(item.seconds) if item.seconds is not None else "–"
        epochs = str(item.epochs or "")
        return self._columns(width, item.recipe, item.dataset, item.method, epochs, price, item.title, "dim")

    def _columns(
        self, width: int, name: str, dataset: str, method: str, epochs: str, price: str, title: str, dim: str
    ) -> list[Piece]:
        pieces = [Piece(f" {name}", "", _name_width(width))]
        pieces += [Piece(dataset, dim, DATASET)] if width >= WIDE else []
        pieces += [Piece(method, "", METHOD), Piece(epochs, "", EPOCHS), Piece(price, "", PRICE)]
        return [*pieces, Piece(f"  {title}", dim)] if width >= WIDER else pieces


def _name_width(width: int) -> int:
    return NAME + (8 if width >= WIDER else 1)


class OfferPanel(Static):
    """Beside or below the list: what is known of one recipe."""

    DEFAULT_CSS = """
    OfferPanel { padding: 0 1; height: 9; border-top: solid $panel-lighten-2; overflow-y: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)

    def show(self, offer: Offer | None) -> None:
        """Show a recipe, or nothing."""
        self.update(_about(offer) if offer else "")


def _about(offer: Offer) -> Text:
    text = Text().append(printable(offer.title or offer.recipe), "bold")
    if offer.mistakes:
        return text.append(f"\n✘ {printable(offer.mistakes)}").append("\nenter shows each at its place", "dim")
    if not offer.read:
        return text.append("\n…", "dim")
    facts = [
        ("price", about(offer.seconds, offer.like)),
        ("data", f"{offer.dataset}: {offer.data}"),
        ("+TRAIN", offer.train),
    ]
    for name, value in facts:
        text.append(f"\n{name:<7}", "dim").append(printable(value))
    text.append(f"\n{printable(offer.description)}")
    if offer.our_reading:
        text.append("\n† our reading: ", "dim").append(printable(offer.our_reading))
    return text
