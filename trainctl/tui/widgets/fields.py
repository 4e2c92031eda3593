"""A form: fields in sections, each on a line, changed where they stand; their mistakes below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.message import Message
from textual.widgets import Input, Static

from trainctl.cli.common import printable
from trainctl.tui.feed.draft import SIDE, SIDES
from trainctl.tui.feed.form import Field, Form
from trainctl.tui.widgets.lines import Lines, Piece

NAME = 21  # characters of a field's name, with the margin
ORIGIN = 29
EXPLAINED = 130  # width from which the meaning of a field has room
UNSET = "–"


@dataclass(frozen=True)
class Row:
    """A line of the form: a field, or text that the cursor passes over."""

    field: Field | None = None
    head: str = ""
    problem: str = ""


class FieldList(Lines[Row]):
    """The fields of a form that fit what is looked for."""

    class Scrolled(Message):
        """What is drawn over a line must move with it."""

    def key(self, item: Row) -> str:
        """The field's."""
        return item.field.key if item.field else ""

    def pieces(self, item: Row, width: int) -> Sequence[Piece]:
        """Name, value, and where it was set."""
        if item.problem:
            return [Piece(f"   ✘ {item.problem}", "bad")]
        if item.field is None:
            return [Piece(f" {item.head}", "head")]
        field = item.field
        mark = "✘" if field.problems else "*" if field.changed else " "
        role = "bad" if field.problems else "mark" if field.changed else ""
        value = SIDES[field.value] if field.key == SIDE else field.value or UNSET
        origin = f"was {field.base or UNSET}" if field.changed and not field.key.startswith("--") else field.origin
        room = value_width(width)
        return [
            Piece(f" {mark} ", role), Piece(field.name, "", NAME - 3),
            Piece(value, role or ("dim" if not field.value else ""), room), Piece(origin, "dim", ORIGIN),
            Piece(field.help if width >= EXPLAINED else "", "dim"),
        ]  # fmt: skip

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Tell that the lines have moved."""
        super().watch_scroll_y(old_value, new_value)
        self.post_message(self.Scrolled())


def value_width(width: int) -> int:
    """Characters of a value in a form of `width`."""
    return max(20, min(40, width - NAME - ORIGIN))


class Fields(Container):
    """The fields, the line that one is typed into, and what the one under the cursor means."""

    DEFAULT_CSS = """
    Fields {
        layers: base above; height: 1fr;
        & > Input { layer: above; display: none; width: 30; background: $boost; }
    }
    """

    @dataclass
    class Typed(Message):
        """A value was typed for the field `key`."""

        key: str
        text: str

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._form: Form | None = None
        self._looked_for = ""
        self._editing = ""

    def compose(self) -> ComposeResult:
        """The list below, the line above it."""
        yield FieldList(id="fields")
        yield Input(id="value", compact=True, select_on_focus=False)

    @property
    def lines(self) -> FieldList:
        """The list of fields."""
        return self.query_one(FieldList)

    @property
    def field(self) -> Field | None:
        """The field under the cursor."""
        row = self.lines.selected
        return row.field if row else None

    @property
    def editing(self) -> bool:
        """Whether a value is being typed."""
        return bool(self._editing)

    def show(self, form: Form | None, at: str = "") -> None:
        """Show a form; the cursor stays on its field, or goes to the field `at`."""
        self._form = form
        self.lines.show(list(rows(form, self._looked_for)) if form else [], at)
        self.call_after_refresh(self._place)

    def look_for(self, text: str) -> None:
        """Show only the fields whose key or meaning holds all words of `text`."""
        self._looked_for = text
        self.show(self._form)

    def edit(self) -> None:
        """Type the value of the field under the cursor, at its place."""
        if self.field is None:
            return
        self._editing = self.field.key
        line = self.query_one("#value", Input)
        line.value = self.field.value
        line.cursor_position = len(line.value)
        line.display = True
        self._place()
        self.screen.set_focus(line)

    def leave(self) -> None:
        """Type no more; the value stays as it was."""
        self._editing = ""
        self.query_one("#value", Input).display = False
        self.lines.focus()

    def on_resize(self) -> None:
        """The line stays at its field."""
        self.call_after_refresh(self._place)

    @on(FieldList.Scrolled)
    def _place(self) -> None:
        """Put the line over the value."""
        line = self.query_one("#value", Input)
        if self._editing:
            line.styles.offset = (NAME, self.lines.row)
            line.styles.width = max(10, self.lines.size.width - NAME)

    @on(Input.Submitted, "#value")
    def _entered(self, event: Input.Submitted) -> None:
        key, text = self._editing, event.value
        event.stop()
        self.leave()
        if key:
            self.post_message(self.Typed(key, text))

    @on(Input.Changed, "#value")
    def _changed(self, event: Input.Changed) -> None:
        event.stop()


def rows(form: Form, looked_for: str = "") -> list[Row]:
    """The lines of a form, of which `looked_for` leaves those that hold all its words."""
    words = looked_for.casefold().split()
    found = [Row(problem=problem) for problem in form.problems]
    section = ""
    for field in form.fields:
        if not all(word in f"{field.key} {field.name} {field.help}".casefold() for word in words):
            continue
        if field.section != section:
            section = field.section
            found.append(Row(head=section))
        found.append(Row(field))
        found += [Row(problem=problem) for problem in field.problems]
    return found


class FieldPanel(Static):
    """Below the form: what a field means, what it may be, and what is wrong with it, in full."""

    DEFAULT_CSS = "FieldPanel { height: 5; padding: 0 1; border-top: solid $panel-lighten-2; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, markup=False)

    def show(self, field: Field | None) -> None:
        """Show a field, or nothing."""
        self.update(_about(field) if field else "", layout=False)  # its height is fixed


def _about(field: Field) -> Text:
    key = field.name if field.key.startswith("--") and field.name else field.key.rstrip("0123456789")
    text = Text().append(key, "bold").append(f"  {printable(field.help)}")
    for problem in field.problems:
        text.append(f"\n✘ {printable(problem)}")
    if field.choices:
        shown = [f"{choice or 'off'}" if field.key != SIDE else SIDES[choice] for choice in field.choices]
        text.append("\nspace takes the next of: ", "dim").append(" · ".join(map(printable, shown)))
    if field.origin:
        text.append("\nset in " if field.origin != "default" else "\n", "dim").append(printable(field.origin), "dim")
        text.append(f", {printable(field.base or UNSET)}; r goes back to it" if field.changed else "", "dim")
    return text
