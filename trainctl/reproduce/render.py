"""A table's result as a grid for the renderers of `compare`, as CSV and as JSON."""

from __future__ import annotations

import csv as standard_csv
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

from trainctl.compare.grid import HEADS, Cell, Grid, Row, Section
from trainctl.compare.marks import Notes
from trainctl.reproduce.result import Cell as Number
from trainctl.reproduce.result import Outcome, Result
from trainctl.reproduce.rows import METRICS, metrics

FIELDS = (
    "table", "scale", "checkpoint", "row", "metric", "published", "mean", "std", "n", "values", "difference",
    "baseline", "delta", "low", "high", "matched", "published_delta", "runs", "threat", "notes",
)  # fmt: skip


def grid(result: Result) -> Grid:
    """Each row of the paper as some lines: measured, printed, and what it gains over its baseline, ours and theirs."""
    notes = Notes()
    columns = metrics(result.plan.table)
    usual = {metric: _shared(result, metric) for metric in columns}
    heads = tuple(Cell(HEADS.get(METRICS[m], m), marks=_marks(notes, usual[m])) for m in columns)
    rows = tuple(row for outcome in result.outcomes for row in _lines(outcome, result, columns, usual, notes))
    for text in result.notes:
        notes.mark(text)
    return Grid(
        (Section(result.title, result.notice or "the paper's own setting", columns, heads, rows),), tuple(notes)
    )


def _shared(result: Result, metric: str) -> tuple[str, ...]:
    """What was measured unlike in the paper in every row of a column: said once, at its head."""
    found = [cell.unlike for outcome in result.outcomes for cell in outcome.cells if cell.metric == metric]
    measured = [unlike for unlike, n in zip(found, _counts(result, metric), strict=True) if n]
    return measured[0] if measured and all(unlike == measured[0] for unlike in measured) else ()


def _counts(result: Result, metric: str) -> list[int]:
    return [cell.measured.n for outcome in result.outcomes for cell in outcome.cells if cell.metric == metric]


def _marks(notes: Notes, texts: Iterable[str]) -> tuple[int, ...]:
    return tuple(map(notes.mark, texts))


def _lines(
    outcome: Outcome, result: Result, columns: tuple[str, ...], usual: dict[str, tuple[str, ...]], notes: Notes
) -> Iterable[Row]:
    cells = {cell.metric: cell for cell in outcome.cells}

    def row(kind: str, label: str, n: str, make: Callable[[Number], Cell], marks: tuple[int, ...] = ()) -> Row:
        return Row(kind, label, n, tuple(make(cells[m]) if m in cells else Cell() for m in columns), marks)

    def measured(cell: Number) -> Cell:
        own = [text for text in cell.unlike if text not in usual[cell.metric]]
        return _number(cell.metric, cell.measured.mean, cell.measured.std, marks=_marks(notes, own))

    label = outcome.line.row.label
    yield row("baseline", label, str(len(outcome.done)), measured, _marks(notes, (*outcome.notes, *missing(outcome))))
    yield row("paper", "paper", "", lambda cell: _number(cell.metric, cell.published))
    if result.plan.scale == "full" and outcome.done:
        yield row("delta", "difference", "", lambda cell: _number(cell.metric, cell.difference, sign="+"))
    deltas = [cell.delta for cell in outcome.cells if cell.delta is not None]
    if deltas:
        matched = max(delta.n for delta in deltas)
        if matched:
            yield row("delta", f"Δ to {outcome.baseline}", str(matched), _delta)
        yield row(
            "paper", f"paper's Δ to {outcome.baseline}" if not matched else "paper's Δ", "",
            lambda cell: _number(cell.metric, cell.published_delta, sign="+"),
        )  # fmt: skip


def _delta(cell: Number) -> Cell:
    if cell.delta is None:
        return Cell()
    return _number(cell.metric, cell.delta.mean, cell.delta.half_width, sign="+")


def _number(
    metric: str, value: float | None, margin: float | None = None, *, sign: str = "", marks: tuple[int, ...] = ()
) -> Cell:
    if value is None:
        return Cell(marks=marks)
    places = 3 if metric == "l_tp_test" and margin is not None else 2
    return Cell(f"{value:{sign}.{places}f}", "" if margin is None else f"{margin:.{places}f}", marks)


def missing(outcome: Outcome) -> list[str]:
    """Which runs the numbers of a row lack; nothing where it is plain to see that none was started."""
    if not any(outcome.runs):
        return []
    said: dict[str, list[str]] = {}
    for planned, row in zip(outcome.line.runs, outcome.runs, strict=True):
        if row is None or row.status != "done":
            said.setdefault("not run yet" if row is None else row.status, []).append(str(planned.seed))
    return [f"seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}: {status}" for status, seeds in said.items()]


def as_json(result: Result) -> dict[str, Any]:
    """The object of `reproduce --json`."""
    return {
        "table": result.plan.table,
        "scale": result.plan.scale,
        "title": result.title,
        "checkpoint": result.checkpoint,
        "notice": result.notice,
        "notes": list(result.notes),
        "rows": [row_json(outcome) for outcome in result.outcomes],
        "cells": [_cell_json(outcome, cell) for outcome in result.outcomes for cell in outcome.cells],
        "runs": len(result.plan.runs()),
        "done": len({row.id for outcome in result.outcomes for row in outcome.done}),
    }


def row_json(outcome: Outcome) -> dict[str, Any]:
    """A row with the recipe that it means and its runs."""
    line = outcome.line
    runs = [
        {"seed": planned.seed, "id": row and row.id, "status": row.status if row else "missing"}
        for planned, row in zip(line.runs, outcome.runs, strict=True)
    ]
    return {
        "label": line.row.label,
        "recipe": line.recipe,
        "overrides": list(line.overrides),
        "group": line.runs[0].group,
        "quoted_from": line.row.quoted_from,
        "notes": list(outcome.notes),
        "runs": runs,
    }


def _cell_json(outcome: Outcome, cell: Number) -> dict[str, Any]:
    return {
        "row": outcome.line.row.label,
        "metric": cell.metric,
        "published": cell.published,
        **vars(cell.measured),
        "difference": cell.difference,
        "baseline": outcome.baseline or None,
        "delta": None if cell.delta is None else vars(cell.delta),
        "published_delta": cell.published_delta,
        "threats": list(cell.threats),
        "unlike": list(cell.unlike),
    }


def csv(result: Result) -> str:
    """A line a published number."""
    text = io.StringIO()
    lines = standard_csv.DictWriter(text, FIELDS, restval="", lineterminator="\n")
    lines.writeheader()
    about = {"table": result.plan.table, "scale": result.plan.scale, "checkpoint": result.checkpoint}
    for outcome in result.outcomes:
        for cell in outcome.cells:
            found = _cell_json(outcome, cell)
            delta = found["delta"] or {}
            line = {name: found.get(name) for name in FIELDS if found.get(name) is not None}
            line |= {
                "values": " ".join(map(repr, cell.measured.values)),
                "delta": delta.get("mean"), "low": delta.get("low"), "high": delta.get("high"),
                "matched": delta.get("n"), "runs": " ".join(row.id for row in outcome.done),
                "threat": json.dumps(found["threats"]), "notes": "; ".join((*outcome.notes, *cell.unlike)),
            }  # fmt: skip
            lines.writerow(about | line)
    return text.getvalue()


def plan_json(result: Result, seconds: float | None) -> dict[str, Any]:
    """The object of `reproduce --dry-run --json`: the same without what was measured."""
    whole = as_json(result)
    cells = [
        {name: cell[name] for name in ("row", "metric", "published", "published_delta")} for cell in whole["cells"]
    ]
    return whole | {"cells": cells, "seconds": seconds}
