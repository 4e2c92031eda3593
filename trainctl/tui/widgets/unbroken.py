"""Drawing that cannot end the dashboard."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

W = TypeVar("W", bound=Widget)


def unbroken(draw: Callable[[W, int], Strip]) -> Callable[[W, int], Strip]:
    """A `render_line` whose mistakes stand in its line, where Textual would end the app."""

    @wraps(draw)
    def safely(self: Any, y: int) -> Strip:
        try:
            return draw(self, y)
        except Exception as error:
            said = f" cannot be drawn: {type(error).__name__}: {error}"
            return Strip([Segment(said.encode("unicode_escape").decode())]).adjust_cell_length(max(0, self.size.width))

    return safely
