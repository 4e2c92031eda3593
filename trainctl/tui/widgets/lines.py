"""A list of lines with a cursor. Only the lines in sight are drawn, so it may have thousands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from trainctl.cli.common import printable
from trainctl.tui.widgets.unbroken import unbroken

Item = TypeVar("Item")


class Piece(NamedTuple):
    """A part of a line: a text, what it is (of COMPONENT_CLASSES), its width; 0: its own, below 0: at the right."""

    text: str
    role: str = ""
    width: int = 0


class Lines(ScrollView, Generic[Item], can_focus=True):
    """Base of lists: a subclass says what the key of an item is, "" if the cursor passes over it, and how it looks."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lines--dim", "lines--head", "lines--mark", "lines--good", "lines--warn", "lines--bad", "lines--cursor",
        "lines--resting",
    }  # fmt: skip
    DEFAULT_CSS = """
    Lines {
        height: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; background: $background;
        & > .lines--dim { color: $secondary; }
        & > .lines--head { color: $primary; text-style: bold; }
        & > .lines--mark { color: $accent; text-style: bold; }
        & > .lines--good { color: $success; }
        & > .lines--warn { color: $warning; }
        & > .lines--bad { color: $error; }
        & > .lines--cursor { background: $primary-muted; text-style: bold; }
        & > .lines--resting { background: $panel; }
    }
    """
    # Moving a cursor needs no line of help.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home", "edge(0)", "First", show=False),
        Binding("end", "edge(-1)", "Last", show=False),
    ]

    class Moved(Message):
        """The cursor stands on another item."""

        def __init__(self, lines: Lines[Any]) -> None:
            super().__init__()
            self.lines = lines

        @property
        def control(self) -> Lines[Any]:
            """The list that it stands in."""
            return self.lines

    class Chosen(Moved):
        """The item under the cursor was clicked again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._items: tuple[Item, ...] = ()
        self._cursor = 0

    def key(self, item: Item) -> str:
        """What an item is known by; "" if the cursor passes over it."""
        raise NotImplementedError

    def pieces(self, item: Item, width: int) -> Sequence[Piece]:
        """An item as a line of `width` characters; what does not fit is cut off."""
        raise NotImplementedError

    def heading(self, width: int) -> Sequence[Piece]:
        """What stands above the lines and does not scroll; () for nothing."""
        return ()

    @property
    def selected(self) -> Item | None:
        """The item under the cursor."""
        found = self._items[self._cursor] if self._cursor < len(self._items) else None
        return found if found is not None and self.key(found) else None

    @property
    def row(self) -> int:
        """The line of the widget that the cursor stands in."""
        return self._cursor - self.scroll_offset.y + self._top

    @property
    def _top(self) -> int:
        return 1 if self.heading(80) else 0

    def show(self, items: Sequence[Item], at: str = "") -> None:
        """Show `items`; the cursor goes to the item `at`, or stays on its own, or near it if that has gone."""
        before = self.selected
        wanted = at or (self.key(before) if before is not None else "")
        self._items = tuple(items)
        self.virtual_size = Size(0, len(self._items) + self._top)
        found = next((index for index, item in enumerate(self._items) if wanted and self.key(item) == wanted), None)
        if found is not None:
            self._cursor = found
        else:
            self._cursor = self._selectable(min(self._cursor, max(0, len(self._items) - 1)), 1)
        self.call_after_refresh(self._follow, center=bool(at))
        self.refresh()
        if self.selected is not before:
            self.post_message(self.Moved(self))

    def select(self, key: str) -> None:
        """Move the cursor to the item `key`."""
        self.show(self._items, key)

    def _selectable(self, index: int, step: int) -> int:
        """The nearest item from `index` on in the direction of `step` that has a key, else in the other one."""
        for direction in (step, -step):
            place = index
            while 0 <= place < len(self._items):
                if self.key(self._items[place]):
                    return place
                place += direction
        return 0

    def _go(self, index: int, step: int) -> None:
        last = self._cursor
        self._cursor = self._selectable(max(0, min(index, len(self._items) - 1)), step)
        self._follow()
        if self._cursor != last:
            self.refresh()
            self.post_message(self.Moved(self))

    def _follow(self, *, center: bool = False) -> None:
        """Scroll until the cursor is in sight, with the line above it, which may be a heading of its section."""
        above = 1 if self._cursor and not self.key(self._items[self._cursor - 1]) else 0
        region = Region(0, self._cursor - above, 1, 1 + above + self._top)
        self.scroll_to_region(region, animate=False, force=True, immediate=True, center=center)

    def action_move(self, step: int) -> None:
        """To the next or the previous item."""
        self._go(self._cursor + step, step)

    def action_page(self, step: int) -> None:
        """A page on."""
        self._go(self._cursor + step * max(1, self.size.height - 1 - self._top), step)

    def action_edge(self, index: int) -> None:
        """To the first or the last item."""
        self._go(0 if index == 0 else len(self._items) - 1, 1 if index == 0 else -1)

    def on_click(self, event: events.Click) -> None:
        """To the item under the mouse; on the one under the cursor: chosen."""
        index = self.scroll_offset.y + event.y - self._top
        if event.y < self._top or not 0 <= index < len(self._items) or not self.key(self._items[index]):
            return
        if index == self._cursor:
            self.post_message(self.Chosen(self))
        else:
            self._go(index, 1)

    def on_focus(self) -> None:
        """The cursor is bright."""
        self.refresh()

    def on_blur(self) -> None:
        """The cursor is dim."""
        self.refresh()

    @unbroken
    def render_line(self, y: int) -> Strip:
        """The line `y` of the widget."""
        width = self.size.width
        index = self.scroll_offset.y + y - self._top
        if y < self._top:
            return self._strip(self.heading(width), width, "lines--dim")
        if not 0 <= index < len(self._items):
            return Strip.blank(width, self.rich_style)
        cursor = ("lines--cursor" if self.has_focus else "lines--resting") if index == self._cursor else ""
        return self._strip(self.pieces(self._items[index], width), width, cursor if self.selected is not None else "")

    def _strip(self, pieces: Sequence[Piece], width: int, over: str) -> Strip:
        base = self.rich_style + (self.get_component_rich_style(over, partial=True) if over else self.rich_style)
        segments = []
        for text, role, size in pieces:
            shown = fitted(text, size)
            own = self.get_component_rich_style(f"lines--{role}", partial=True) if role else None
            segments.append(Segment(shown, base + own if own else base))
        return Strip(segments).adjust_cell_length(width, base)


def fitted(text: str, width: int) -> str:
    """`text` on one line, in `width` characters; 0: as it is, below 0: at the right."""
    text = " ".join(printable(text).split()) if "\n" in text or "\t" in text else printable(text)
    size = abs(width)
    if not size:
        return text
    if cell_len(text) > size - 1:  # a blank keeps columns apart
        text = set_cell_size(text, size - 2) + "…"
    return (" " * max(0, size - 1 - cell_len(text)) + text + " ") if width < 0 else set_cell_size(text, size)
