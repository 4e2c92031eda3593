"""Table 4: what an epoch costs with each method. Another machine has other seconds, so what compares are the ratios."""

from __future__ import annotations

import csv as standard_csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine import events
from trainctl.compare.grid import Cell, Grid, Row, Section
from trainctl.compare.marks import Notes
from trainctl.home import Home
from trainctl.reproduce import render
from trainctl.reproduce.result import Outcome, Result
from trainctl.reproduce.rows import TIMING, baseline, rows

HEADS = ("s/epoch", "÷ Vanilla AT", "÷ its base")
_METRIC = "epoch_seconds"


@dataclass(frozen=True)
class Ratio:
    """Median over rounds of one setting's seconds by another's, and half the interquartile range."""

    median: float
    spread: float
    published: float


@dataclass(frozen=True)
class Time:
    """Seconds of an epoch of one row; its ratio to the table's first row and to the row that it builds on."""

    published: float
    seconds: float | None
    rounds: int
    ratio: Ratio | None
    base: str
    base_ratio: Ratio | None


def read(home: Home, result: Result) -> list[Time]:
    """The measurement behind `result`, one Time a row; without numbers if there is none yet."""
    done = next((row.id for outcome in result.outcomes for row in outcome.done), None)
    found = _events(home, done) if done else {}
    return [_time(index, outcome, found) for index, outcome in enumerate(result.outcomes)]


def _events(home: Home, run: str) -> dict[int, Mapping[str, Any]]:
    """The timing events of a run by the number of their setting, which is that of the row."""
    data = home.run(run).events.read_bytes()
    return {int(event["setting"]): event for _, event in events.read(data) if event["event"] == "timing"}


def _time(index: int, outcome: Outcome, found: Mapping[int, Mapping[str, Any]]) -> Time:
    row, table = outcome.line.row, rows(TIMING)
    base = baseline(row)
    published = row.published[_METRIC]
    event = found.get(index)
    if event is None:
        return Time(published, None, 0, None, base.label if base else "", None)

    def ratio(other: int) -> Ratio | None:
        if other == index or other not in found:
            return None
        return _ratio(_rounds(event), _rounds(found[other]), published / table[other].published[_METRIC])

    own = ratio(table.index(base)) if base else None
    seconds = float(event["seconds_per_epoch"])
    return Time(published, seconds, int(event["rounds"]), ratio(0), base.label if base else "", own)


def _rounds(event: Mapping[str, Any]) -> list[float]:
    """Seconds by epoch: the batches of two rows may differ where --set says so."""
    return [float(step) * float(event["steps_per_epoch"]) for step in event["round_seconds"]]


def _ratio(ours: Sequence[float], theirs: Sequence[float], published: float) -> Ratio:
    """Round by round, so that what slowed the machine down in a round slowed both."""
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, _, high = statistics.quantiles(each, n=4) if len(each) > 1 else (each[0],) * 3
    return Ratio(statistics.median(each), (high - low) / 2, published)


def grid(result: Result, times: Sequence[Time]) -> Grid:
    """Two lines a row: measured and printed."""
    notes = Notes()
    lines = []
    for outcome, time in zip(result.outcomes, times, strict=True):
        marks = tuple(notes.mark(text) for text in (*outcome.notes, *render.missing(outcome)))
        pair = (time.ratio, time.base_ratio)
        seconds = Cell() if time.seconds is None else Cell(f"{time.seconds:.4g}")
        ours = (seconds, *(Cell(f"{r.median:.3f} ±{r.spread:.3f}") if r else Cell() for r in pair))
        lines.append(Row("baseline", outcome.line.row.label, str(time.rounds), ours, marks))
        printed = (Cell(f"{time.published:.0f}"), *(Cell(f"{r.published:.3f}") if r else Cell() for r in pair))
        lines.append(Row("paper", "paper", "", printed))
    for text in result.notes:
        notes.mark(text)
    heads = tuple(map(Cell, HEADS))
    section = Section(result.title, result.notice or "the paper's own setting", HEADS, heads, tuple(lines))
    return Grid((section,), tuple(notes))


def as_json(result: Result, times: Sequence[Time]) -> dict[str, Any]:
    """As of the other tables; a cell has the seconds as "mean", and the ratios."""
    return render.as_json(result) | {"cells": [_cell(*pair) for pair in zip(result.outcomes, times, strict=True)]}


def csv(result: Result, times: Sequence[Time]) -> str:
    """A line a row of the table."""
    text = io.StringIO()
    cells = [_flat(_cell(*pair)) for pair in zip(result.outcomes, times, strict=True)]
    lines = standard_csv.DictWriter(text, ["table", "scale", *cells[0]], lineterminator="\n")
    lines.writeheader()
    lines.writerows({"table": TIMING, "scale": result.plan.scale, **cell} for cell in cells)
    return text.getvalue()


def _cell(outcome: Outcome, time: Time) -> dict[str, Any]:
    return {
        "row": outcome.line.row.label,
        "metric": _METRIC,
        "published": time.published,
        "mean": time.seconds,
        "n": time.rounds,
        "ratio": time.ratio and vars(time.ratio),
        "baseline": time.base or None,
        "baseline_ratio": time.base_ratio and vars(time.base_ratio),
    }


def _flat(cell: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in cell.items() if key not in ("ratio", "baseline_ratio")}
    for name in ("ratio", "baseline_ratio"):
        for part in ("median", "spread", "published"):
            found[f"{name}_{part}"] = (cell[name] or {}).get(part)
    return found
