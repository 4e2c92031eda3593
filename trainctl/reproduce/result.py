"""What came out of a table's runs, beside what the paper prints."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.recipe import Recipe, needs_standard
from trainctl.compare import members
from trainctl.compare.members import Member
from trainctl.compare.statistics import Difference, Spread, paired_difference, spread
from trainctl.home import Home
from trainctl.recipes.load import resolve
from trainctl.registry.plain import dotted
from trainctl.registry.query import RunRow
from trainctl.registry.readings import reading
from trainctl.registry.threats import Threat, short
from trainctl.reproduce.plan import Key, Line, TablePlan, key
from trainctl.reproduce.rows import METRICS, TIMING, Row, baseline, caption
from trainctl.reproduce.scales import experiment

QUOTED = {"LAS": "LAS-AT (Jia et al., CVPR 2022)", "LBGAT": "LBGAT (Cui et al., ICCV 2021)"}
# The threat models of the two protocols; engine/evaluate/protocols.py has where they come from.
_PGD20 = {
    "lbgat": {"eps": 0.031, "step_size": 0.003, "steps": 20, "start": "uniform"},
    "las": {"eps": 8 / 255, "step_size": 2 / 255, "steps": 20, "start": "uniform-clipped"},
}
_WORDS = {"eps": "ε", "step_size": "step", "n": "images"}
_IMAGES = 10_000  # of every test set in the paper
_TABLES = {
    1: "the paper gives ε of Tables 1 and 2 as 8/255 and, five lines on, as 0.031; here it is 8/255",
    2: "the paper gives ε of Tables 1 and 2 as 8/255 and, five lines on, as 0.031; here it is 8/255",
    3: "the paper's text calls this an ablation on TRADES; its rows say Vanilla AT and agree with Table 6",
    4: "the paper names no data set here: CIFAR-100 in the settings of its ablations is our reading",
    5: "the paper does not say how neighbours vote in its topology scores: by cosine distance, all alike, is ours",
    6: "the paper does not say how neighbours vote in its topology scores: by cosine distance, all alike, is ours",
    10: "L_TP of the test set: mean over batches of 128, x' by PGD-20, which is our reading",
}
_L_TP = (
    "L_TP in its default reading: features of M' on x', relative to the nearest sample of the batch, summed over all "
    "pairs; the smaller last batch of an epoch is kept and not rescaled. docs/train.md has the other readings"
)
_RAMP = "lambda rises by a(t) = 2/(1 + exp(-10 t/T)) - 1 from 0 to 1, which the paper prints otherwise"
_M = "M is a ResNet-18 here; the row does not say which it was"
_CHECKPOINT = "the paper does not say which checkpoint it reports"
# What a reader must know first when it is not as in the paper.
_SETTING = {
    "data.dataset": "data set", "model.arch": "M'", "standard.arch": "M", "schedule.epochs": "epochs",
    "attack.eps": "ε", "topology.weight": "λ", "optim.lr": "learning rate", "eval.protocol": "protocol",
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One published number and ours: percent, or for l_tp_test a loss. `delta` is what `row` gains over its baseline in
    the same table, over matched seeds; None where the table has no baseline for it.
    """

    metric: str
    published: float
    measured: Spread
    delta: Difference | None
    published_delta: float | None
    threats: tuple[Threat, ...]
    unlike: tuple[str, ...]
    """How it was measured unlike in the paper."""

    @property
    def difference(self) -> float | None:
        """Ours less theirs."""
        return None if self.measured.mean is None else self.measured.mean - self.published


@dataclass(frozen=True)
class Outcome:
    """One row of a table."""

    line: Line
    runs: tuple[RunRow | None, ...]
    """What the home has for each of the line's runs."""
    baseline: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]

    @property
    def done(self) -> list[RunRow]:
        """The runs that the numbers come from."""
        return [row for row in self.runs if row is not None and row.status == "done"]


@dataclass(frozen=True)
class Result:
    """A whole table. `notice` says what of the paper's setting was changed; "" if nothing was."""

    plan: TablePlan
    checkpoint: str
    notice: str
    notes: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def title(self) -> str:
        """Over the table."""
        return f"Table {self.plan.table}, scale {self.plan.scale}: {caption(self.plan.table)}"


def collect(home: Home, plan: TablePlan, have: Mapping[Key, RunRow], checkpoint: str) -> Result:
    """The table with the runs that are done of `have` (plan.standing); `checkpoint` is "best" or "last"."""
    rows = [tuple(have.get(key(run)) for run in line.runs) for line in plan.lines]
    loaded: dict[str, Member] = {}
    for row in (row for found in rows for row in found if row is not None and row.status == "done"):
        loaded.setdefault(row.id, members.load(home, row, checkpoint))
    sides = {
        line.row.label: {row.seed: loaded[row.id] for row in found if row is not None and row.id in loaded}
        for line, found in zip(plan.lines, rows, strict=True)
    }
    lines = {line.row.label: line for line in plan.lines}
    outcomes = [_outcome(line, found, sides, lines) for line, found in zip(plan.lines, rows, strict=True)]
    rules = dict.fromkeys(member.rule for member in loaded.values() if member.rule)
    return Result(plan, checkpoint, notice(plan), tuple(_notes(plan, checkpoint, list(rules))), tuple(outcomes))


Sides = Mapping[str, Mapping[int | None, Member]]
"""The runs of each row that are done, by seed."""


def _outcome(line: Line, found: tuple[RunRow | None, ...], sides: Sides, lines: Mapping[str, Line]) -> Outcome:
    row, base = line.row, baseline(line.row)
    mine = sides[row.label]
    cells = []
    for metric, published in row.published.items():
        ours: dict[Hashable, float | None] = {seed: member.value(METRICS[metric]) for seed, member in mine.items()}
        threats = [threat for member in mine.values() if (threat := member.threat(METRICS[metric])) is not None]
        distinct = [threat for index, threat in enumerate(threats) if threat not in threats[:index]]
        delta, gain = None, None
        if base is not None and metric in base.published:
            theirs: dict[Hashable, float | None] = {
                seed: member.value(METRICS[metric]) for seed, member in sides[base.label].items()
            }
            delta, gain = paired_difference(theirs, ours), published - base.published[metric]
        unlike = tuple(dict.fromkeys(text for one in distinct if (text := unlike_paper(row, metric, one))))
        cells.append(Cell(metric, published, spread(ours.values()), delta, gain, tuple(distinct), unlike))
    notes = _of_row(line, lines[base.label] if base is not None else None)
    return Outcome(line, found, base.label if base is not None else "", tuple(cells), tuple(notes))


def unlike_paper(row: Row, metric: str, threat: Threat) -> str:
    """`ε 0.25 instead of 0.031, 359 images instead of 10000`: what of a number's threat model is not the paper's."""
    expected: dict[str, Any] = {}
    if metric in ("pgd20", "cw20"):
        expected |= _PGD20[row.protocol]
    elif metric == "aa":
        expected["eps"] = _PGD20[row.protocol]["eps"]
    expected["n"] = _IMAGES
    return ", ".join(
        f"{_WORDS.get(name, name)} {short(threat[name])} instead of {short(value)}"
        for name, value in expected.items()
        if threat.get(name) is not None and not _same(threat[name], value)
    )


def _same(one: Any, other: Any) -> bool:
    return math.isclose(one, other, rel_tol=1e-9) if isinstance(other, float) else bool(one == other)


def _of_row(line: Line, base: Line | None) -> Iterable[str]:
    """What a reader must know about a row's numbers."""
    row, recipe = line.row, line.resolved
    if row.quoted_from:
        yield f"the paper quotes this row from {QUOTED[row.quoted_from]}"
    if row.note:
        yield row.note
    if row.teacher == "unstated" and recipe.standard.arch == "resnet-18":
        yield _M
    if ours := reading(dotted(recipe.model_dump())):
        yield f"our reading: {ours}"
    if base is not None and len({_form(recipe), _form(base.resolved), ""}) > 2:
        yield (
            "LBGAT is here as the TRAIN paper's equations have it, in its baseline's row as in its authors' code: Δ is "
            "not due to TRAIN alone"
        )


def _form(recipe: Recipe) -> str:
    """Which LBGAT it is; "" for none."""
    return str(getattr(recipe.method, "form", "")) if recipe.method.name == "lbgat" else ""


def _notes(plan: TablePlan, checkpoint: str, rules: Sequence[str]) -> Iterable[str]:
    """What holds for the whole table."""
    if plan.table in _TABLES and not (plan.scale == "tiny" and plan.table in (1, 2)):
        yield _TABLES[plan.table]
    if plan.table == TIMING:
        yield "medians over the steps of all rounds, in which every row takes its turn; ± half the interquartile range"
        return
    trained = [line.resolved.topology for line in plan.lines if line.row.train]
    if trained:
        yield _L_TP
    if any(topology.ramp for topology in trained):
        yield _RAMP
    chosen = f" ({', '.join(rules)})" if rules and checkpoint == "best" else ""
    yield f"{_CHECKPOINT}; here it is `{checkpoint}`{chosen}"


def notice(plan: TablePlan) -> str:
    """What of the paper's setting was changed, as `… NOT the paper's setting: epochs 20 instead of 100, …`, or ""."""
    shown = [name for name in _SETTING if (plan.table, name) != (TIMING, "schedule.epochs")]
    changed: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for line in plan.lines:
        wanted = experiment(line.row, "full")
        here, there = line.resolved, resolve(wanted.recipe, wanted.overrides).recipe
        for name in shown:
            ours, theirs = _value(here, name), _value(there, name)
            if ours is not None and theirs is not None and not _same(ours, theirs):
                mine, printed = changed.setdefault(name, ({}, {}))
                mine[short(ours)] = printed[short(theirs)] = None
    said = [f"{_SETTING[name]} {'/'.join(one)} instead of {'/'.join(other)}" for name, (one, other) in changed.items()]
    if plan.scale == "small" and any("aa" in line.resolved.eval.attacks for line in plan.lines) and not plan.beside:
        said.append("AutoAttack on 1000 images")
    if plan.scale == "tiny":
        said.append("all that the recipes of digits change besides")
    other = [text for text in plan.settings if text.partition("=")[0].strip() not in changed]
    said += [f"--set {text}" for text in other]
    return f"This is NOT the paper's setting: {', '.join(said)}." if said else ""


def _value(recipe: Recipe, name: str) -> Any:
    """A setting that has an effect on the run; None for one that has none."""
    section, _, last = name.partition(".")
    idle = {
        "standard": not needs_standard(recipe),
        "topology": not recipe.topology.enabled,
        "attack": recipe.method.name == "standard",
    }
    return None if idle.get(section) else getattr(getattr(recipe, section), last)
