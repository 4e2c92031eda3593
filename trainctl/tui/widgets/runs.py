"""The table of runs. It changes cells in place, so that the cursor and the scroll position stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.widgets import DataTable

from trainctl.tui import keys
from trainctl.tui.feed.runs import Row
from trainctl.tui.text import COLUMNS, WIDTHS, aligned, cells, method

WORDS = {"eta": "ETA", "natural": "nat."}
GAP = 1  # characters between two columns


class RunsTable(DataTable[Text]):
    """Rows are keyed by run id."""

    # The table takes enter before its screen does.
    BINDINGS: ClassVar[list[BindingType]] = [
        keys.binding(key, "select_cursor") for key in keys.KEYS if (key.place, key.action) == (keys.HOME, "open")
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=0, zebra_stripes=True, id="runs")
        self._rows: tuple[Row, ...] = ()
        self._shown: dict[str, list[Text]] = {}
        self._layout: tuple[int, int] = (0, 0)

    @property
    def selected(self) -> str:
        """Id of the run under the cursor, or ""."""
        return self._rows[self.cursor_row].run.id if 0 <= self.cursor_row < len(self._rows) else ""

    def on_resize(self) -> None:
        """Give the name what the other columns leave."""
        self.show(self._rows)

    def show(self, rows: Sequence[Row]) -> None:
        """Show `rows`, newest first."""
        before, self._rows = self.selected, tuple(rows)
        short = self.size.width < 110
        widths = self._widths(short)
        fresh = {row.run.id: cells(row, widths["name"], short=short) for row in rows}
        layout = (widths["name"], widths["method"])
        if layout != self._layout or list(fresh) != list(self._shown):
            self._layout = layout
            self._rebuild(fresh, widths, before)
        else:
            for run, line in fresh.items():
                for column, cell, old in zip(COLUMNS, line, self._shown[run], strict=True):
                    if cell != old:
                        self.update_cell(run, column, cell)
        self._shown = fresh

    def _rebuild(self, fresh: dict[str, list[Text]], widths: dict[str, int], selected: str) -> None:
        self.clear(columns=True)
        for column in COLUMNS:
            self.add_column(aligned(column, WORDS.get(column, column)), key=column, width=widths[column] + GAP)
        for run, line in fresh.items():
            self.add_row(*line, key=run)
        if selected in fresh:
            self.move_cursor(row=list(fresh).index(selected), scroll=True)

    def _widths(self, short: bool) -> dict[str, int]:
        widest = max((len(method(row.run, short=short)) for row in self._rows), default=6)
        widths = {**WIDTHS, "method": min(max(6, widest), 14 if short else 22)}
        taken = sum(widths.values()) + GAP * len(COLUMNS) + self.scrollbar_size_vertical
        return {**widths, "name": max(12, self.size.width - taken)}
