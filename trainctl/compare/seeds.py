"""The numbers behind a mean: the runs of a pair seed by seed, as lines of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.compare.grid import Cell, Row, decimals
from trainctl.compare.members import Member
from trainctl.compare.rows import Pair, Side


def lines(entry: Pair | Side, metrics: Sequence[str], loaded: Mapping[str, Member]) -> tuple[Row, ...]:
    """For each seed the run of the baseline, that of its twin and their difference; of a side its runs.

    `loaded` are the runs by id. A seed that only one side has gets that side's line alone.
    """
    if isinstance(entry, Side):
        places = {metric: decimals(metric, [entry]) for metric in metrics}
        by_seed = _by_seed(entry, loaded)
        return tuple(_run(f"seed {_name(seed)} · {by_seed[seed].run.id}", by_seed[seed], places) for seed in by_seed)
    places = {metric: decimals(metric, [entry.baseline, entry.train]) for metric in metrics}
    baseline, train = _by_seed(entry.baseline, loaded), _by_seed(entry.train, loaded)
    found: list[Row] = []
    for seed in sorted({**baseline, **train}, key=lambda seed: (seed is None, seed or 0)):
        before, after = baseline.get(seed), train.get(seed)
        if before:
            found.append(_run(f"seed {_name(seed)} · {before.run.id}", before, places))
        if after:
            head = "+ TRAIN" if before else f"seed {_name(seed)} + TRAIN"
            found.append(_run(f"{head} · {after.run.id}", after, places))
        if before and after:
            found.append(_difference(before, after, places))
    return tuple(found)


def _by_seed(side: Side, loaded: Mapping[str, Member]) -> dict[int | None, Member]:
    return {seed: loaded[run] for seed, run in zip(side.seeds, side.runs, strict=True)}


def _name(seed: int | None) -> str:
    return "?" if seed is None else str(seed)


def _run(label: str, member: Member, places: Mapping[str, int]) -> Row:
    values = ((member.value(metric), count) for metric, count in places.items())
    return Row("seed", label, "", tuple(Cell() if v is None else Cell(f"{v:.{count}f}") for v, count in values))


def _difference(before: Member, after: Member, places: Mapping[str, int]) -> Row:
    cells = []
    for metric, count in places.items():
        left, right = before.value(metric), after.value(metric)
        cells.append(Cell() if left is None or right is None else Cell(f"{right - left:+.{count}f}"))
    return Row("seed delta", "Δ", "", tuple(cells))
