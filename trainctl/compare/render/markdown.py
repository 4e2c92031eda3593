"""GitHub's Markdown tables."""

from __future__ import annotations

from trainctl.compare.grid import Cell, Grid, Row, Section, build, legend
from trainctl.compare.marks import letters
from trainctl.compare.rows import Comparison

_SPECIAL = str.maketrans({character: "\\" + character for character in "\\`*_|[]<>#~"})


def markdown(comparison: Comparison) -> str:
    """One table a section, the best numbers bold, and below the notes and what bold and ± mean."""
    return write(build(comparison))


def write(grid: Grid) -> str:
    """The same for a grid."""
    parts = [_section(section) for section in grid.sections] or ["No runs to compare.\n"]
    if grid.notes:
        parts.append("".join(f"- {letters([index])}: {_escape(note)}\n" for index, note in enumerate(grid.notes)))
    if said := legend((row for section in grid.sections for row in section.rows), "bold:"):
        parts.append(_escape(said) + "\n")
    return "\n".join(parts)


def _section(section: Section) -> str:
    heads = ["", "n", *(_marked(_escape(head.value), head.marks) for head in section.heads)]
    lines = [f"**{_escape(section.title)}** ({_escape(section.caption)})", ""]
    lines += [_line(heads), _line([":--", *["--:"] * (len(heads) - 1)])]
    lines += [_line(_row(row)) for row in section.rows]
    return "\n".join(lines) + "\n"


def _row(row: Row) -> list[str]:
    label = _marked(_escape(row.label), row.marks)
    return [f"*{label}*" if row.kind == "paper" else label, row.n, *(_cell(cell) for cell in row.cells)]


def _cell(cell: Cell) -> str:
    if not cell.value:
        return "–"
    text = f"**{cell.value}**" if cell.best else cell.value
    return _marked(text + (f" ± {cell.margin}" if cell.margin else ""), cell.marks)


def _marked(text: str, marks: tuple[int, ...]) -> str:
    return f"{text} <sup>{letters(marks)}</sup>" if marks else text


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(text: str) -> str:
    return text.translate(_SPECIAL)
