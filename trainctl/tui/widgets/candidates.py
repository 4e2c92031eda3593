"""The runs that would start, before they do."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.widgets import Static

from trainctl.cli.common import printable
from trainctl.tui.feed.launch import span
from trainctl.tui.feed.plan import Candidate, Plan
from trainctl.tui.widgets.lines import Lines, Piece

METHOD, SEED, PLACE, PRICE = 16, -6, 18, -9
SETTINGS = 110  # width from which the changed settings have room


class CandidateList(Lines[Candidate]):
    """A line a run."""

    def key(self, item: Candidate) -> str:
        """The run's name."""
        return item.name

    def heading(self, width: int) -> Sequence[Piece]:
        """Names of the columns."""
        return self._columns(width, "run", "method", "seed", "where", "price", "changed")

    def pieces(self, item: Candidate, width: int) -> Sequence[Piece]:
        """Name, method, seed, where it works, price; and the equal one that is done."""
        price = span(item.seconds) if item.seconds is not None else "–"
        pieces = self._columns(width, item.name, item.method, str(item.seed), item.place, price, item.settings)
        if item.done:
            pieces.insert(1, Piece(f"✔ {item.done}", "good", 11))
            pieces[0] = Piece(f" {item.name}", "", self._name_width(width) - 11)
        return pieces

    def _name_width(self, width: int) -> int:
        rest = METHOD - SEED + PLACE - PRICE
        return max(20, min(60, width - rest - (width // 4 if width >= SETTINGS else 0)))

    def _columns(
        self, width: int, name: str, method: str, seed: str, place: str, price: str, settings: str
    ) -> list[Piece]:
        pieces = [
            Piece(f" {name}", "", self._name_width(width)), Piece(method, "", METHOD), Piece(seed, "", SEED),
            Piece(f"  {place}", "", PLACE), Piece(price, "", PRICE),
        ]  # fmt: skip
        return [*pieces, Piece(f"  {settings}", "dim")] if width >= SETTINGS else pieces


class Summary(Static):
    """Below them: how many start and wait, what it costs, and the command that does the same."""

    DEFAULT_CSS = """
    Summary { height: auto; max-height: 12; padding: 0 1; border-top: solid $panel-lighten-2; overflow-y: auto; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)

    def show(self, plan: Plan) -> None:
        """Show what a plan comes to."""
        self.update(_summary(plan))


def counted(number: int, noun: str = "run") -> str:
    """`1 run`, `6 runs`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _summary(plan: Plan) -> Text:
    total, together = len(plan.runs), min(plan.together, len(plan.runs))
    text = Text().append(counted(total), "bold")
    if plan.before:
        text.append(f": {plan.before} queued or at work come first")
    else:
        text.append(f": {together} at once, {total - together} wait" if total > together else ": start at once")
    if plan.known:
        text.append(f" · about {span(plan.seconds)} here")
        missing = total - plan.known
        text.append(f", without {missing} that nothing is known of" if missing else "")
    else:
        text.append(" · no run like them yet, so no price")
    if plan.done:
        done = f"{plan.done} of these are" if plan.done > 1 else "1 of these is"
        text.append(f"\n✔ {done} done already; starting trains them once more" if plan.done else "")
    text.append("\nnothing has started yet: enter starts, y copies this command\n", "dim")
    return text.append(printable(plan.line))
