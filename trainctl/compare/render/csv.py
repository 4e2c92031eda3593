"""One line for each number, unrounded, so that nothing has to be parsed out of a cell."""

from __future__ import annotations

import csv as standard_csv
import io
import json
from collections.abc import Iterable
from typing import Any

from trainctl.compare.price import Priced
from trainctl.compare.rows import Comparison, Side

HEADER = (
    "pair", "side", "label", "dataset", "model", "protocol", "checkpoint", "metric",
    "mean", "std", "low", "high", "n", "values", "runs", "threat", "notes",
)  # fmt: skip

PRICE_HEADER = ("pair", "side", "amount", "mean", "std", "n", "values", "runs", "devices", "comparable")


def csv(comparison: Comparison) -> str:
    """Long form: side is baseline, train, delta (with low and high of its 95 % interval), alone, or paper."""
    text = io.StringIO()
    lines = standard_csv.DictWriter(text, HEADER, restval="", lineterminator="\n")
    lines.writeheader()
    for pair in comparison.pairs:
        for name, side in (("baseline", pair.baseline), ("train", pair.train)):
            lines.writerows(_side(pair.label, name, side, comparison))
        for metric, found in pair.delta.items():
            about = _about(pair.label, "delta", pair.train, comparison) | {"metric": metric}
            different = "threat models differ" if metric in pair.unequal else ""
            lines.writerow(about | _numbers(vars(found)) | {"notes": different})
        lines.writerows(_paper(pair.label, pair.paper, pair.train, comparison))
    for side in comparison.alone:
        lines.writerows(_side("", "alone", side, comparison))
        lines.writerows(_paper("", side.paper, side, comparison))
    return text.getvalue()


def prices(priced: Iterable[Priced]) -> str:
    """The same for prices: side is baseline, train or ratio, amounts are seconds and MB."""
    text = io.StringIO()
    lines = standard_csv.DictWriter(text, PRICE_HEADER, restval="", lineterminator="\n")
    lines.writeheader()
    for cost in priced:
        for name, side in (("baseline", cost.baseline), ("train", cost.train)):
            for amount, found in side.amounts.items() if side else ():
                about = {
                    "pair": cost.label,
                    "side": name,
                    "amount": amount,
                    "values": " ".join(map(repr, found.values)),
                }
                runs = {"runs": " ".join(side.runs), "devices": "; ".join(side.devices)} if side else {}
                lines.writerow(about | _numbers(vars(found)) | runs)
        for amount in cost.baseline.amounts if cost.train else ():
            ratio = {"mean": cost.ratio(amount), "comparable": cost.comparable}
            lines.writerow({"pair": cost.label, "side": "ratio", "amount": amount} | _numbers(ratio))
    return text.getvalue()


def _side(pair: str, name: str, side: Side, comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for metric, found in side.metrics.items():
        if found.n:
            numbers = _numbers(vars(found)) | {"values": " ".join(map(repr, found.values)), "runs": " ".join(side.runs)}
            about = {
                "metric": metric,
                "threat": json.dumps(side.threats.get(metric, [])),
                "notes": "; ".join(side.notes),
            }
            rows.append(_about(pair, name, side, comparison) | numbers | about)
    return rows


def _paper(pair: str, paper: dict[str, Any] | None, side: Side, comparison: Comparison) -> list[dict[str, Any]]:
    rows = []
    for name in ("baseline", "train"):
        row = paper[name] if paper else None
        about = _about(pair, f"paper {name}", side, comparison)
        rows += [
            about | {"label": row["label"], "metric": metric, "mean": row[metric], "notes": _origin(row, paper)}
            for metric in comparison.metrics
            if row and metric in row
        ]
    return rows


def _about(pair: str, name: str, side: Side, comparison: Comparison) -> dict[str, Any]:
    return {
        "pair": pair, "side": name, "label": side.label, "dataset": side.dataset, "model": side.model,
        "protocol": side.protocol, "checkpoint": comparison.checkpoint,
    }  # fmt: skip


def _numbers(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None and key != "values"}


def _origin(row: dict[str, Any], paper: dict[str, Any] | None) -> str:
    quoted = f", quoted from {row['quoted_from']}" if "quoted_from" in row else ""
    return f"Table {paper['table'] if paper else ''} of {paper['source'] if paper else ''}{quoted}"
