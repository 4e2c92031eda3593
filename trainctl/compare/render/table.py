"""The comparison for a terminal. Where one line does not hold a row, the ± stands below its number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainctl.compare.grid import Cell, Grid, Row, Section, build, legend
from trainctl.compare.marks import raised
from trainctl.compare.rows import Comparison

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

_COLOURS = {"better": "green", "worse": "red", "": ""}
_STYLES = {"baseline": "", "train": "", "alone": "", "delta": "bold", "paper": "dim italic"}


def table(comparison: Comparison, width: int) -> list[RenderableType]:
    """What to print, from top to bottom, on a terminal of `width` columns. "*" marks the best, as bold does."""
    return lay_out(build(comparison), width)


def lay_out(grid: Grid, width: int) -> list[RenderableType]:
    """The same for a grid."""
    from rich.text import Text

    parts: list[RenderableType] = []
    for section in grid.sections:
        parts += [
            Text(section.title, style="bold"),
            Text(section.caption, style="dim"),
            _table(section, width),
            Text(""),
        ]
    for index, note in enumerate(grid.notes):
        parts.append(Text(f"{raised([index])} {note}"))
    if said := legend((row for section in grid.sections for row in section.rows), "*"):
        parts.append(Text(said, style="dim"))
    return parts


def _table(section: Section, width: int) -> Table:
    stacked = _build(section, True)
    flat = _build(section, False)
    return flat if _needs(flat) <= width else stacked


def _needs(table: Table) -> int:
    """Columns that the table takes when nothing is wrapped."""
    from rich.console import Console
    from rich.measure import Measurement

    return Measurement.get(console := Console(width=10_000), console.options, table).maximum


def _build(section: Section, stacked: bool) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False, collapse_padding=True)
    table.add_column("", overflow="fold", min_width=10 if stacked else None)
    table.add_column("n", justify="right", no_wrap=True)
    for head in section.heads:
        text = head.value.replace(" ", "\n") if stacked else head.value
        table.add_column(_text(text, head.marks), justify="right", no_wrap=True)
    for index, row in enumerate(section.rows):
        if index and row.kind == "baseline":
            table.add_section()
        table.add_row(_label(row), row.n, *(_cell(cell, stacked) for cell in row.cells), style=_STYLES[row.kind])
    return table


def _label(row: Row) -> Text:
    indent = "  " if row.kind in ("train", "delta") else ""
    return _text(indent + row.label, row.marks)


def _cell(cell: Cell, stacked: bool) -> Text:
    from rich.text import Text

    if not cell.value:
        return Text("–", style="dim")
    text = Text(cell.value, style="bold" if cell.best else _COLOURS[cell.clear])
    text.append("*" if cell.best else "")
    text.append(raised(cell.marks))
    if cell.margin:
        text.append(f"{chr(10) if stacked else ' '}±{cell.margin}", style="not bold dim")
    return text


def _text(text: str, marks: tuple[int, ...]) -> Text:
    from rich.text import Text

    return Text(text + raised(marks))
