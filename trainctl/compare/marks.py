"""Marks in tables: letters that point to notes, and which numbers of a plain list of runs need one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from trainctl.registry.threats import Threat, common, decisive, deviation, words

# Raised letters keep the columns narrow. Unicode has no raised q; from there on marks are written [q].
_SUPERSCRIPTS = dict(enumerate("ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖ"))
UNKNOWN = "measured under a threat model that is not known"


class Notes(list[str]):
    """Footnotes in the order of their marks, which count from 0."""

    def mark(self, text: str) -> int:
        """The mark of a note, which is added if it is new."""
        if text not in self:
            self.append(text)
        return self.index(text)


@dataclass(frozen=True)
class Marked:
    """The marks of a list of runs: `marks[row][metric]`, what they point to, and what every other number is under."""

    marks: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    caption: str


def mark(heads: Mapping[str, str], rows: Sequence[tuple[Mapping[str, float | None], Mapping[str, Threat]]]) -> Marked:
    """Mark numbers that were measured under another threat model than most in their column.

    `heads` names the columns by metric; each row is its numbers and their threat models by metric.
    """
    found = [
        {metric: decisive(threats.get(metric)) for metric in heads if values.get(metric) is not None}
        for values, threats in rows
    ]
    usual = {metric: common(row[metric] or {} for row in found if row.get(metric) is not None) for metric in heads}
    notes = Notes()
    marks = []
    for row in found:
        said = {metric: _deviation(threat, usual[metric]) for metric, threat in row.items()}
        marks.append({metric: raised([notes.mark(text)]) for metric, text in said.items() if text})
    noted = tuple(f"{raised([index])} {text}" for index, text in enumerate(notes))
    return Marked(tuple(marks), noted, _caption(heads, usual))


def letters(marks: Iterable[int]) -> str:
    """Marks as a, b, …, z, aa, ab, …"""
    return " ".join(_letter(mark) for mark in marks)


def raised(marks: Iterable[int]) -> str:
    """Marks as raised letters, where Unicode has them."""
    return "".join(_SUPERSCRIPTS.get(mark, f"[{_letter(mark)}]") for mark in marks)


def _letter(mark: int) -> str:
    rest, last = divmod(mark, 26)
    return (_letter(rest - 1) if rest else "") + "abcdefghijklmnopqrstuvwxyz"[last]


def _deviation(threat: Threat | None, usual: Threat | None) -> str:
    return UNKNOWN if threat is None else deviation(threat, usual or {})


def _caption(heads: Mapping[str, str], usual: Mapping[str, Threat | None]) -> str:
    """`natural: 360 of 360 images; PGD-20, topo rob.: linf, ε 0.25, …`"""
    columns: dict[str, list[str]] = {}
    for metric, head in heads.items():
        if text := words(usual[metric] or {}):
            columns.setdefault(text, []).append(head)
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in columns.items())
