"""How runs are written on the screens: always as `Text`, so that no name is read as markup."""

from __future__ import annotations

from collections.abc import Mapping

from rich.text import Text

from trainctl.cli import words
from trainctl.cli.common import printable
from trainctl.registry.query import RunRow
from trainctl.tui.feed.runs import Row

GLYPHS = {
    "queued": "○", "starting": "◔", "running": "●", "stopping": "◑", "done": "✔", "failed": "✘", "diverged": "↯",
    "oom": "✘", "killed": "■", "preempted": "■", "timeout": "■", "lost": "?",
}  # fmt: skip
ROBUST = ("aa", "pgd20", "cw20", "pgd10")  # AutoAttack where it was measured, else PGD
COLUMNS = ("status", "name", "method", "seed", "epoch", "eta", "natural", "robust")
NUMBERS = ("seed", "epoch", "eta", "natural")
WIDTHS = {"status": 10, "seed": 4, "epoch": 7, "eta": 7, "natural": 5, "robust": 11}  # the others share the rest


def status(run: RunRow) -> Text:
    """Glyph and word, coloured."""
    return Text(f"{GLYPHS.get(run.status, ' ')} {run.status}", words.STYLES.get(run.status, ""))


def method(run: RunRow, *, short: bool = False) -> str:
    """The method, and whether TRAIN is added: `trades +TRAIN`, or `trades+T`; † behind what is our reading."""
    return run.method + (("+T" if short else " +TRAIN") if run.topology else "") + "†" * bool(run.our_reading)


def accuracies(metrics: Mapping[str, float | None]) -> tuple[str, str]:
    """Natural and robust accuracy with the name of the attack. While a run trains, those of the selection split.

    These end in `v` if the split is the validation set, in `t` if it is the test set.
    """
    for prefix, mark in (("", ""), ("validation_", "v"), ("test_", "t")):
        natural = metrics.get(f"{prefix}natural")
        robust = next((name for name in ROBUST if metrics.get(prefix + name) is not None), None)
        if natural is not None or robust:
            shown = f"{metrics[prefix + robust]:.1f}{mark} {robust}" if robust else ""
            return (f"{natural:.1f}{mark}" if natural is not None else ""), shown
    return "", ""


def cells(row: Row, name_width: int, *, short: bool) -> list[Text]:
    """A line of the table, a cell a column of COLUMNS."""
    run = row.run
    natural, robust = accuracies(run.metrics)
    name = Text(printable(run.name.removesuffix(f"-s{run.seed}")))
    name.truncate(name_width, overflow="ellipsis")
    plain = (
        method(run, short=short), "" if run.seed is None else str(run.seed), f"{run.epoch}/{run.epochs or '?'}",
        words.duration(row.eta) if row.eta is not None else "", natural, robust,
    )  # fmt: skip
    texts = [aligned(column, text) for column, text in zip(COLUMNS[2:], plain, strict=True)]
    return [status(run), name, *texts]


def aligned(column: str, text: str) -> Text:
    """A cell or a heading; numbers stand at the right of their column."""
    return Text(text.rjust(WIDTHS[column]) if column in NUMBERS else text)
