"""A comparison as lines of cells with their marks: what all renderers of tables share.

Rows stand in sections of one data set, architecture and protocol. Within a section each column has one threat model,
the most common; a number under another one carries a mark, as does everything else a reader must know.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from engine.events import METRICS
from trainctl.compare.marks import Notes
from trainctl.compare.members import SECONDS
from trainctl.compare.rows import Comparison, Pair, Side
from trainctl.compare.statistics import Difference, Spread
from trainctl.registry.threats import Threat, common, deviation, short

HEADS = {
    "natural": "natural", "pgd10": "PGD-10", "pgd20": "PGD-20", "cw20": "C&W-20", "aa": "AA",
    "topo_natural": "topo nat.", "topo_robust": "topo rob.", "l_tp": "L_TP", SECONDS: "s/epoch",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One number as text; `margin` follows a ±. `clear` is "better" or "worse" where an interval excludes zero."""

    value: str = ""
    margin: str = ""
    marks: tuple[int, ...] = ()
    best: bool = False
    clear: str = ""


@dataclass(frozen=True)
class Row:
    """One line; `kind` is baseline, train, delta, paper or alone."""

    kind: str
    label: str
    n: str
    cells: tuple[Cell, ...]
    marks: tuple[int, ...] = ()


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
    entries: dict[tuple[str, str, str], tuple[list[Pair], list[Side]]] = {}
    for pair in comparison.pairs:
        entries.setdefault(_place(pair.baseline), ([], []))[0].append(pair)
    for side in comparison.alone:
        entries.setdefault(_place(side), ([], []))[1].append(side)
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


def _place(side: Side) -> tuple[str, str, str]:
    return side.dataset, side.model, side.protocol


class _Builder:
    """Builds one section; `notes` is shared by all."""

    def __init__(
        self,
        comparison: Comparison,
        place: tuple[str, str, str],
        pairs: list[Pair],
        alone: list[Side],
        notes: Notes,
    ) -> None:
        self.pairs, self.alone, self.notes = pairs, alone, notes
        self.checkpoint, self.place = comparison.checkpoint, place
        self.baselines = list({pair.baseline.runs: pair.baseline for pair in pairs}.values())
        self.paired = self.baselines + [pair.train for pair in pairs]
        sides = self.paired + alone
        self.metrics = tuple(m for m in comparison.metrics if any(side.metrics[m].n for side in sides))
        self.common = {m: common(threat for side in sides for threat in side.threats.get(m, [])) for m in self.metrics}
        self.places = {metric: _decimals(metric, sides) for metric in self.metrics}
        self.best = {metric: _best(metric, self.common[metric], self.paired) for metric in self.metrics}

    def section(self) -> Section:
        caption, heads = self._caption(), tuple(self._head(metric) for metric in self.metrics)  # marks in reading order
        rows: list[Row] = []
        for side in self.alone:
            rows += [self._side("alone", side.label, side, compete=False), *self._paper(side.paper)]
        for baseline in self.baselines:
            rows.append(self._side("baseline", baseline.label, baseline))
            for pair in self.pairs:
                if pair.baseline.runs == baseline.runs:
                    rows += [self._side("train", _twin(pair), pair.train), self._delta(pair), *self._paper(pair.paper)]
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
        rules = dict.fromkeys(side.rule for side in self.paired + self.alone if side.rule)
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
            best = (
                compete and found.mean is not None and found.mean == self.best[metric] and self._is_common(side, metric)
            )
            margin = "" if found.std is None else f"{found.std:.{places}f}"
            cells.append(Cell(_fixed(found, places), margin, self._mark(self._deviations(side, metric)), best))
        return Row(kind, label, str(len(side.runs)), tuple(cells), self._mark(side.notes))

    def _is_common(self, side: Side, metric: str) -> bool:
        return side.threats.get(metric, [self.common[metric]]) == [self.common[metric]]

    def _deviations(self, side: Side, metric: str) -> Iterable[str]:
        """What the number was measured under, where that is not what its column says."""
        found = [deviation(threat, self.common[metric] or {}) for threat in side.threats.get(metric, [])]
        return filter(None, found)

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


def _best(metric: str, common: Threat | None, sides: list[Side]) -> float | None:
    """The best mean among two or more sides with the column's threat model."""
    higher = METRICS.get(metric)
    known = [s.metrics[metric].mean for s in sides if s.threats.get(metric) == [common]]
    means = [mean for mean in known if mean is not None]
    if higher is None or len(means) < 2 or min(means) == max(means):
        return None
    return max(means) if higher else min(means)


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


def _decimals(metric: str, sides: list[Side]) -> int:
    if metric != SECONDS:
        return 3 if metric == "l_tp" else 2
    largest = max((side.metrics[metric].mean or 0.0) for side in sides)
    return 2 if largest < 10 else 1 if largest < 100 else 0


def _fixed(found: Spread, places: int) -> str:
    return "" if found.mean is None else f"{found.mean:.{places}f}"
