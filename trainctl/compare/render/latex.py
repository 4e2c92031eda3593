"""LaTeX tables; they need the packages booktabs and threeparttable."""

from __future__ import annotations

from trainctl.compare.grid import Cell, Grid, Row, Section, build, legend
from trainctl.compare.marks import letters
from trainctl.compare.rows import Comparison

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
        "Δ": r"$\Delta$", "ε": r"$\varepsilon$", "±": r"$\pm$", "·": r"$\cdot$", "→": r"$\to$", "…": r"\dots{}",
        "–": "--", "'": r"{\textquotesingle}", "`": r"\textasciigrave{}",
    }
)  # fmt: skip


def latex(comparison: Comparison) -> str:
    """One table environment a section: ± std, the best numbers bold, and below its notes and what bold and ± mean."""
    return write(build(comparison))


def write(grid: Grid) -> str:
    """The same for a grid."""
    head = "% needs \\usepackage{booktabs,threeparttable,textcomp}\n"
    return head + "\n".join(_section(section, grid.notes) for section in grid.sections)


def _section(section: Section, notes: tuple[str, ...]) -> str:
    heads = ["", "$n$", *(_marked(escape(cell.value), cell.marks) for cell in section.heads)]
    lines = [
        r"\begin{table}", r"\centering", r"\begin{threeparttable}",
        rf"\caption{{{escape(section.title)}: {escape(section.caption)}}}",
        rf"\begin{{tabular}}{{lr{'r' * len(section.heads)}}}", r"\toprule", _line(heads), r"\midrule",
    ]  # fmt: skip
    for index, row in enumerate(section.rows):
        if row.kind == "baseline" and index:
            lines.append(r"\midrule")
        lines.append(_line(_row(row)))
    lines += [r"\bottomrule", r"\end{tabular}"]
    items = [rf"\item[{letters([mark])}] {escape(notes[mark])}" for mark in _used(section)]
    if said := legend(section.rows, "bold:"):
        items.append(rf"\item[] {escape(said)}")
    if items:
        lines += [r"\begin{tablenotes}\footnotesize", *items, r"\end{tablenotes}"]
    return "\n".join([*lines, r"\end{threeparttable}", r"\end{table}"]) + "\n"


def _used(section: Section) -> list[int]:
    marks = [mark for cell in section.heads for mark in cell.marks]
    for row in section.rows:
        marks += [*row.marks, *(mark for cell in row.cells for mark in cell.marks)]
    return sorted(set(marks))


def _row(row: Row) -> list[str]:
    label = escape(row.label)
    label = (
        rf"\quad {label}" if row.kind in ("train", "delta") else rf"\emph{{{label}}}" if row.kind == "paper" else label
    )
    return [_marked(label, row.marks), row.n, *(_cell(cell) for cell in row.cells)]


def _cell(cell: Cell) -> str:
    if not cell.value:
        return "--"
    value = cell.value.replace("-", "$-$").replace("+", "$+$")
    text = rf"\textbf{{{value}}}" if cell.best else value
    return _marked(text + (rf" {{\scriptsize $\pm$ {cell.margin}}}" if cell.margin else ""), cell.marks)


def _marked(text: str, marks: tuple[int, ...]) -> str:
    return rf"{text}\tnote{{{letters(marks)}}}" if marks else text


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return text.translate(_ESCAPES)
