"""The rows of the paper's tables, as compare/paper_tables.toml has them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from trainctl.compare.members import SECONDS
from trainctl.compare.paper import tables

# What the paper prints, in the order of its columns, and what a run calls it.
METRICS = {
    "natural": "natural", "pgd20": "pgd20", "cw20": "cw20", "aa": "aa", "topo_natural": "topo_natural",
    "topo_robust": "topo_robust", "l_tp_test": "l_tp", "epoch_seconds": SECONDS,
}  # fmt: skip
TIMING = 4  # the one table that is about time
TABLES = range(1, 13)


@dataclass(frozen=True)
class Row:
    """One line of a table; `published` has its numbers by the names of `METRICS`."""

    table: int
    label: str
    base: str
    train: str
    dataset: str
    protocol: str
    backbone: str
    teacher: str
    quoted_from: str
    note: str
    published: dict[str, float]
    batch_size: int | None
    lambda_ramp: float | None


@cache
def rows(table: int) -> tuple[Row, ...]:
    """The rows of one table, in its order."""
    return tuple(_row(entry) for entry in tables()["rows"] if entry["table"] == table)


def caption(table: int) -> str:
    """What the paper writes over a table."""
    return str(next(entry["caption"] for entry in tables()["tables"] if entry["id"] == table))


def metrics(table: int) -> tuple[str, ...]:
    """The columns of a table."""
    printed = {metric for row in rows(table) for metric in row.published}
    return tuple(metric for metric in METRICS if metric in printed)


def baseline(row: Row) -> Row | None:
    """The row of the same table that `row` builds on, which its gain is printed over; None if there is none.

    That of the same base without TRAIN; for another addition, as "+ LBGAT", that of the bare base; and in the tables
    that have TRAIN alone (8 and 9) the first such row.
    """
    others = [other for other in rows(row.table) if other != row and other.base != "standard"]
    if row.base == "standard":
        return None
    if row.train:
        without = [other for other in others if other.base == row.base and not other.train]
        first = next(other for other in rows(row.table) if other.base == row.base)
        return without[0] if without else first if first != row else None
    bare = row.base.partition("+")[0]
    return next((other for other in others if other.base == bare != row.base and not other.train), None)


def _row(entry: dict[str, Any]) -> Row:
    # Table 4 names no data set; its batches of 128 and its networks are those of the protocol of the ablations.
    timed = entry["protocol"] == "timing"
    return Row(
        table=entry["table"],
        label=entry["label"],
        base=entry["base"],
        train=entry["train"],
        dataset="cifar100" if timed else entry["dataset"],
        protocol="lbgat" if timed else entry["protocol"],
        backbone=entry["backbone"],
        teacher=entry["teacher"],
        quoted_from=entry["quoted_from"],
        note=entry.get("note", ""),
        published={metric: float(entry[metric]) for metric in METRICS if metric in entry},
        batch_size=entry.get("batch_size"),
        lambda_ramp=entry.get("lambda_ramp"),
    )
