"""A comparison as lines of cells with their marks: what all renderers of tables share.

Rows stand in sections of one data set, architecture and protocol. Within a section each column has one threat model,
the most common; a number under another one carries a mark, as does everything else a reader must know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from engine.events import METRICS
from trainctl.compare.marks import Notes
from trainctl.compare.members import SECONDS
from trainctl.compare.rows import Comparison, Pair, Side
from trainctl.compare.statistics import Difference, Spread
from trainctl.registry.threats import Threat, common, deviation, short

_T = TypeVar("_T")

HEADS = {
    "natural": "natural", "pgd10": "PGD-10", "pgd20": "PGD-20", "cw20": "C&W-20", "aa": "AA",
    "topo_natural": "topo nat.", "topo_robust": "topo rob.", "l_tp": "L_TP", SECONDS: "s/epoch",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One number as text; `margin` follows a ±. `clear` is "better" or "worse" where an interval excludes zero.

    `second` is the best but one, where there are three or more.
    """

    value: str = ""
    margin: str = ""
    marks: tuple[int, ...] = ()
    best: bool = False
    clear: str = ""
    second: bool = False


@dataclass(frozen=True)
class Row:
    """One line; `kind` is baseline, train, delta, paper or alone.

    `entry` says whose it is: the place among the pairs of the comparison and, after them, its runs without a partner.
    """

    kind: str
    label: str
    n: str
    cells: tuple[Cell, ...]
    marks: tuple[int, ...] = ()
    entry: int = -1


@dataclass(frozen=True)
class Section:
    """Rows that may stand in one table. `heads` has the marks of whole columns."""

    title: str
    caption: str
    metrics: tuple[str, ...]
    heads: tuple[Cell, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Grid:
    """All sections and the notes that their marks, counted from 0, point to."""

    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def build(comparison: Comparison) -> Grid:
    """Lay out a comparison; pairs come before runs without a partner."""
    notes = Notes()
    entries: dict[tuple[str, str, str], tuple[_Numbered[Pair], _Numbered[Side]]] = {}
    for number, pair in enumerate(comparison.pairs):
        entries.setdefault(_place(pair.baseline), ([], []))[0].append((number, pair))
    for number, side in enumerate(comparison.alone, len(comparison.pairs)):
        entries.setdefault(_place(side), ([], []))[1].append((number, side))
    sections = [_Builder(comparison, place, *found, notes).section() for place, found in entries.items()]
    return Grid(tuple(sections), tuple(notes))


def legend(rows: Iterable[Row], best: str) -> str:
    """What `best` (how a renderer marks the best) and ± mean, as far as `rows` have them; "" if they have neither."""
    rows = list(rows)
    spread = any(cell.margin for row in rows if row.kind != "delta" for cell in row.cells)
    interval = any(cell.margin for row in rows if row.kind == "delta" for cell in row.cells)
    said = [f"{best} best of the pairs"] if any(cell.best for row in rows for cell in row.cells) else []
    if spread or interval:
        parts = ["std over seeds (n)"] * spread + ["in rows Δ the 95 % interval of the paired difference"] * interval
        said.append("± " + ", ".join(parts))
    return "; ".join(said)


_Numbered = list[tuple[int, _T]]


def _place(side: Side) -> tuple[str, str, str]:
    return side.dataset, side.model, side.protocol


class _Builder:
    """Builds one section; `notes` is shared by all."""

    def __init__(
        self,
        comparison: Comparison,
        place: tuple[str, str, str],
        pairs: _Numbered[Pair],
        alone: _Numbered[Side],
        notes: Notes,
    ) -> None:
        self.alone, self.notes = alone, notes
        self.checkpoint, self.place = comparison.checkpoint, place
        self.pairs: dict[tuple[str, ...], _Numbered[Pair]] = {}  # by the runs of their baseline
        for number, pair in pairs:
            self.pairs.setdefault(pair.baseline.runs, []).append((number, pair))
        self.paired = [of[0][1].baseline for of in self.pairs.values()] + [pair.train for _, pair in pairs]
        sides = self.sides = self.paired + [side for _, side in alone]
        self.metrics = tuple(m for m in comparison.metrics if any(side.metrics[m].n for side in sides))
        self.common = {m: common(threat for side in sides for threat in side.threats.get(m, [])) for m in self.metrics}
        self.places = {metric: decimals(metric, sides) for metric in self.metrics}
        self.ranked = {metric: _ranked(metric, self.common[metric], self.paired) for metric in self.metrics}

    def section(self) -> Section:
        caption, heads = self._caption(), tuple(self._head(metric) for metric in self.metrics)  # marks in reading order
        rows: list[Row] = []
        for number, side in self.alone:
            rows += _of(number, self._side("alone", side.label, side, compete=False), *self._paper(side.paper))
        for twins in self.pairs.values():
            first, baseline = twins[0][0], twins[0][1].baseline
            rows += _of(first, self._side("baseline", baseline.label, baseline))
            for number, pair in twins:
                twin = self._side("train", _twin(pair), pair.train)
                rows += _of(number, twin, self._delta(pair), *self._paper(pair.paper))
        dataset, model, protocol = self.place
        title = " · ".join(part for part in (dataset, model, protocol and f"protocol {protocol}") if part)
        return Section(title, caption, self.metrics, heads, tuple(rows))

    def _mark(self, texts: Iterable[str]) -> tuple[int, ...]:
        return tuple(map(self.notes.mark, texts))

    def _caption(self) -> str:
        budgets: dict[str, list[str]] = {}
        for metric in self.metrics:
            threat = self.common[metric] or {}
            if threat.get("eps") and metric not in ("topo_natural", "topo_robust", "l_tp"):  # those are made by PGD-20
                budgets.setdefault(f"ε {short(threat['eps'])}", []).append(_budget(metric, threat))
        rules = dict.fromkeys(side.rule for side in self.sides if side.rule)
        said = [
            f"checkpoint {self.checkpoint}" + (f" ({', '.join(rules)})" if self.checkpoint == "best" and rules else "")
        ]
        return "; ".join(said + [f"{eps}: {', '.join(attacks)}" for eps, attacks in budgets.items()])

    def _head(self, metric: str) -> Cell:
        return Cell(HEADS.get(metric, metric), marks=self._mark(_restrictions(metric, self.common[metric])))

    def _side(self, kind: str, label: str, side: Side, compete: bool = True) -> Row:
        cells = []
        for metric in self.metrics:
            found, places = side.metrics[metric], self.places[metric]
            competes = compete and found.mean is not None and self._is_common(side, metric)
            best, second = (competes and found.mean == mean for mean in self.ranked[metric])
            margin = "" if found.std is None else f"{found.std:.{places}f}"
            marks = self._mark(self._deviations(side, metric))
            cells.append(Cell(_fixed(found, places), margin, marks, best, second=second))
        return Row(kind, label, str(len(side.runs)), tuple(cells), self._mark(side.notes))

    def _is_common(self, side: Side, metric: str) -> bool:
        return side.threats.get(metric, [self.common[metric]]) == [self.common[metric]]

    def _deviations(self, side: Side, metric: str) -> Iterable[str]:
        """What the number was measured under, where that is not what its column says."""
        usual = self.common[metric]
        return [deviation(threat, usual or {}) for threat in side.threats.get(metric, []) if threat != usual]

    def _delta(self, pair: Pair) -> Row:
        cells = []
        for metric in self.metrics:
            found, places = pair.delta[metric], self.places[metric]
            half = found.half_width
            value = "" if found.mean is None else f"{found.mean:+.{places}f}"
            marks = self._mark(
                ["the two sides were measured under different threat models"] if metric in pair.unequal else []
            )
            cells.append(Cell(value, "" if half is None else f"{half:.{places}f}", marks, clear=_clear(metric, found)))
        matched = len(set(pair.baseline.seeds) & set(pair.train.seeds))
        return Row("delta", "Δ", str(matched), tuple(cells), self._mark(_unfair(pair)))

    def _paper(self, paper: dict[str, Any] | None) -> Iterable[Row]:
        for side in ("baseline", "train"):
            row: dict[str, Any] | None = paper and paper[side]
            if paper is None or row is None:
                continue
            said = [f"Table {paper['table']} of {paper['source']}", *paper["notes"]]
            said += [f"quoted there from the {row['quoted_from']} paper"] if "quoted_from" in row else []
            said += [str(row["note"])] if "note" in row else []
            cells = tuple(Cell(f"{row[m]:.2f}" if m in row else "") for m in self.metrics)
            yield Row("paper", f"paper: {row['label']}", "", cells, self._mark(said))


def _budget(metric: str, threat: Threat) -> str:
    step = f" (step {short(threat['step_size'])})" if threat.get("step_size") else ""
    return HEADS.get(metric, metric) + step


def _twin(pair: Pair) -> str:
    """The label of a +TRAIN row: "+ TRAIN", and the settings behind it that the baseline's label does not say."""
    label = pair.train.label
    if label.replace("+train", "", 1) == pair.baseline.label:
        return "+ TRAIN"
    return "+ TRAIN" + label.partition("+train")[2] if "+train" in label else label


def _unfair(pair: Pair) -> Iterable[str]:
    if pair.differs:
        shown = [f"{d['key']} {short(d['baseline'])} → {short(d['train'])}" for d in pair.differs[:6]]
        more = f" and {len(pair.differs) - 6} more" if len(pair.differs) > 6 else ""
        yield "besides TRAIN the sides differ in: " + ", ".join(shown) + more
    unmatched = sorted(str(seed) for seed in set(pair.baseline.seeds) ^ set(pair.train.seeds))
    if unmatched:
        yield f"Δ leaves out seed{'s' * (len(unmatched) > 1)} {', '.join(unmatched)}, which only one side has"


def _ranked(metric: str, common: Threat | None, sides: list[Side]) -> tuple[float | None, float | None]:
    """The best of two or more different means, and the second of three or more, under the column's threat model."""
    higher = METRICS.get(metric)
    known = {side.metrics[metric].mean for side in sides if side.threats.get(metric) == [common]}
    means = sorted((mean for mean in known if mean is not None), reverse=bool(higher))
    if higher is None or len(means) < 2:
        return None, None
    return means[0], means[1] if len(means) > 2 else None


def _of(entry: int, *rows: Row) -> list[Row]:
    return [replace(row, entry=entry) for row in rows]


def _restrictions(metric: str, threat: Threat | None) -> Iterable[str]:
    """What a reader must know about a whole column."""
    if threat is None:
        return
    n, of = threat.get("n"), threat.get("of")
    if n is not None and of is not None and n < of:
        yield f"on {n} of {of} {threat.get('split', 'test')} images"
    if threat.get("standard") is False:
        yield f"AutoAttack is {threat.get('version')}"


def _clear(metric: str, difference: Difference) -> str:
    higher = METRICS.get(metric, False)
    if not difference.is_clear or difference.mean is None:
        return ""
    return "better" if (difference.mean > 0) == higher else "worse"


def decimals(metric: str, sides: list[Side]) -> int:
    """Decimals of a column, the same for all `sides` in it."""
    if metric != SECONDS:
        return 3 if metric == "l_tp" else 2
    largest = max((side.metrics[metric].mean or 0.0) for side in sides)
    return 2 if largest < 10 else 1 if largest < 100 else 0


def _fixed(found: Spread, places: int) -> str:
    return "" if found.mean is None else f"{found.mean:.{places}f}"
