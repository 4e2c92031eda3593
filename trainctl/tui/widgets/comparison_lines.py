"""The lines of the comparison: which stand where, how wide its columns are, and which cells go into them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.cells import cell_len, set_cell_size

from trainctl.cli.common import printable
from trainctl.compare.grid import Cell, Grid, Row
from trainctl.compare.marks import raised

BEST, SECOND = "*", "°"
CLEAR = {"better": "▲", "worse": "▼", "": ""}
LEGEND = f"{BEST} best  {SECOND} second  ▲▼ better, worse: the interval leaves out 0  † our reading"
INDENT = {"train": "  ", "delta": "  ", "seed": "    ", "seed delta": "    "}
READING = "our reading: "  # with this begins the note of runs that leave something to us
WORDS = ("device",)  # columns that hold no numbers
GAP = 2
NARROW, WIDE = 18, 48  # characters of a label at least and at most


@dataclass(frozen=True)
class Column:
    """A column of numbers: how wide are the number, the marks behind it, and its ± margin."""

    name: str
    width: int = 0
    value: int = 0
    mark: int = 0
    margin: int = 0

    def text(self, cell: Cell) -> tuple[str, str, str]:
        """Number, marks and margin of a cell, which together fill the width."""
        if self.name in WORDS:
            return cell.value.ljust(self.width), "", ""
        behind = self.mark + self.margin
        value = (cell.value or "–").rjust(self.width - behind)
        return value, suffix(cell).ljust(self.mark), margin(cell).ljust(self.margin)

    def head(self, cell: Cell) -> str:
        """The heading; it ends where the numbers do, if it is not longer."""
        text, end = cell.value + raised(cell.marks), self.width - self.mark - self.margin
        return (text.rjust(end) if len(text) <= end and self.name not in WORDS else text).ljust(self.width)


@dataclass(frozen=True)
class Line:
    """A line of the screen: of a title, a caption, headings (`cells` are theirs) or a row of the entry `entry`."""

    kind: str
    section: int
    text: str = ""
    n: str = ""
    entry: int = -1
    names: tuple[str, ...] = ()
    cells: tuple[Cell, ...] = ()
    marks: tuple[int, ...] = ()

    def cell(self, name: str) -> Cell | None:
        """What stands in a column; None if this section does not have it."""
        return self.cells[self.names.index(name)] if name in self.names else None


@dataclass(frozen=True)
class Layout:
    """All lines. `heads` are the lines of the sections' headings, `spans` the first and last line of each entry."""

    lines: tuple[Line, ...] = ()
    columns: tuple[Column, ...] = ()
    label: int = 0
    n: int = 0
    heads: tuple[int, ...] = ()
    spans: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def frozen(self) -> int:
        """Characters at the left that do not scroll: the cursor's bar, the label, n."""
        return 1 + self.label + 1 + self.n + GAP

    @property
    def width(self) -> int:
        """All characters of a line."""
        return self.frozen + sum(column.width + GAP for column in self.columns)

    def whole(self, across: int, width: int) -> Sequence[int]:
        """The columns that fit into `width` characters when `across` are scrolled away; a cut number would be wrong."""
        first, left, room = 0, 0, max(0, width - self.frozen)
        while first < len(self.columns) and left < across:
            left += self.columns[first].width + GAP
            first += 1
        last, end = first, 0
        while last < len(self.columns) and end + self.columns[last].width <= room:
            end += self.columns[last].width + GAP
            last += 1
        return range(first, last)

    @property
    def entries(self) -> tuple[int, ...]:
        """The entries from top to bottom."""
        return tuple(self.spans)


def lay_out(grid: Grid, seeds: Mapping[int, Sequence[Row]], metrics: Sequence[str], width: int) -> Layout:
    """The lines of `grid` for `width` characters; below an entry its `seeds`, whose cells are those of `metrics`."""
    lines = tuple(_lines(grid, seeds, tuple(metrics), max(20, width - 2)))
    rows = [line for line in lines if line.entry >= 0]
    names = list(dict.fromkeys(name for section in grid.sections for name in section.metrics))
    columns = tuple(_column(name, lines) for name in names)
    spans: dict[int, tuple[int, int]] = {}
    for number, line in enumerate(lines):
        if line.entry >= 0:
            spans[line.entry] = (spans.get(line.entry, (number, number))[0], number)
    widest = max((cell_len(line.text) for line in rows), default=0)
    n = max((len(line.n) for line in rows), default=1)
    heads = tuple(number for number, line in enumerate(lines) if line.kind == "head")
    return Layout(lines, columns, min(widest, max(NARROW, min(WIDE, width * 2 // 5))), n, heads, spans)


def notes(grid: Grid, entry: int) -> Iterator[str]:
    """What the marks of an entry, and of the headings above it, point to."""
    for section in grid.sections:
        rows = [row for row in section.rows if row.entry == entry]
        if rows:
            marks = [mark for head in section.heads for mark in head.marks]
            for row in rows:
                marks += [*row.marks, *(mark for cell in row.cells for mark in cell.marks)]
            yield from (f"{raised([mark])} {printable(grid.notes[mark])}" for mark in sorted(set(marks)))


def suffix(cell: Cell) -> str:
    """What stands behind a number: whether it is best or clear, which must not hang on colour, and its notes."""
    return (BEST if cell.best else SECOND if cell.second else CLEAR[cell.clear]) + raised(cell.marks)


def margin(cell: Cell) -> str:
    """± and what follows."""
    return f" ±{cell.margin}" if cell.margin else ""


def fitted(text: str, width: int) -> str:
    """`text` in exactly `width` characters; a cut is shown."""
    return set_cell_size(text, width) if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _lines(grid: Grid, seeds: Mapping[int, Sequence[Row]], metrics: tuple[str, ...], width: int) -> Iterator[Line]:
    for number, section in enumerate(grid.sections):
        if number:
            yield Line("", number)
        yield Line("title", number, printable(section.title))
        for text in textwrap.wrap(printable(section.caption), width):
            yield Line("caption", number, text)
        yield Line("head", number, names=section.metrics, cells=section.heads)
        for index, row in enumerate(section.rows):
            yield _line(row, number, section.metrics, grid.notes)
            after = section.rows[index + 1].entry if index + 1 < len(section.rows) else None
            if after != row.entry:
                for seed in seeds.get(row.entry, ()):
                    yield _line(replace(seed, entry=row.entry), number, metrics, grid.notes)


def _line(row: Row, section: int, names: tuple[str, ...], said: Sequence[str]) -> Line:
    reading = "†" if any(said[mark].startswith(READING) for mark in row.marks) else ""
    label = INDENT.get(row.kind, "") + printable(row.label) + reading + raised(row.marks)
    return Line(row.kind, section, label, row.n, row.entry, names, row.cells, row.marks)


def _column(name: str, lines: Sequence[Line]) -> Column:
    """Wide enough for each of its cells."""
    cells, head = [Cell("–")], 0
    for line in lines:
        cell = line.cell(name)
        if cell is not None and line.kind == "head":
            head = max(head, len(cell.value + raised(cell.marks)))
        elif cell is not None:
            cells.append(cell)
    value, mark, behind = (max(map(len, texts)) for texts in zip(*map(_parts, cells), strict=True))
    return Column(name, max(head, value + mark + behind), value, mark, behind)


def _parts(cell: Cell) -> tuple[str, str, str]:
    return cell.value, suffix(cell), margin(cell)
