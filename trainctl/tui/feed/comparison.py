"""The comparison: its tables, and what stands behind the pair under the cursor."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from trainctl.compare import grid, members, price, report, seeds
from trainctl.compare.grid import Grid, Row
from trainctl.compare.histories import histories
from trainctl.compare.members import Member
from trainctl.compare.order import Order
from trainctl.compare.pairs import Group, pair_up
from trainctl.compare.price import Priced
from trainctl.compare.rows import Comparison, Pair, Side
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.plot import series
from trainctl.plot.series import Band
from trainctl.registry import bulk, query
from trainctl.registry.watch import Watch
from trainctl.registry.window import Table, View

RUNS = 1000  # runs that are compared at a time; a table of more is not read by anybody
TABLE, CURVES, PRICE = "pairs", "curves", "price"

AS_MADE = Order()
NOTHING = Grid((), ())

Key = tuple[str, ...]
"""A pair, or runs without a partner, by the ids of its runs."""


@dataclass(frozen=True)
class Asked:
    """What the screen wants to know."""

    filtered: str = ""
    checkpoint: str = "best"
    order: Order = AS_MADE
    tab: str = TABLE
    opened: frozenset[Key] = frozenset()
    """Whose values are wanted seed by seed."""
    chosen: Key = ()
    """What the cursor is on."""


@dataclass(frozen=True)
class Curve:
    """A metric of both sides over the epochs, as bands over the seeds, and TRAIN − baseline."""

    metric: str
    baseline: Band | None
    train: Band | None
    difference: Band | None


@dataclass(frozen=True)
class Chosen:
    """The entry under the cursor: its curves, if they are seen, and of runs without a partner how to make it."""

    key: Key
    curves: tuple[Curve, ...] = ()
    twin: str = ""


@dataclass(frozen=True)
class Compared:
    """The comparison in the order asked for. `left_out` counts the older pairs and runs that are not read.

    `error` is the filter's; the numbers are then those of before.
    """

    asked: Asked
    comparison: Comparison
    grid: Grid
    priced: tuple[Priced, ...] = ()
    prices: Grid = NOTHING
    """Both are worked out when they are looked at."""
    seeds: Mapping[Key, tuple[Row, ...]] = field(default_factory=dict)
    chosen: Chosen | None = None
    left_out: int = 0
    total: int = 0
    """Runs in the home."""
    error: str = ""

    @property
    def entries(self) -> tuple[Pair | Side, ...]:
        """Pairs, then runs without a partner: what the `entry` of a row counts."""
        return (*self.comparison.pairs, *self.comparison.alone)


def key(entry: Pair | Side) -> Key:
    """What names an entry, also when others come or the order changes."""
    return entry.runs if isinstance(entry, Side) else (*entry.baseline.runs, *entry.train.runs)


class ComparisonFeed:
    """Answers of the comparison; remembers what it has read. Used by one thread at a time."""

    def __init__(self, home: Home, watcher: Watch, runs: Sequence[str] = ()) -> None:
        """`runs` are the ids of all that is compared; () for every run that is done, or that a filter means."""
        self.home = home
        self._watcher, self._runs, self._table = watcher, tuple(runs), Table(home)
        self._last: tuple[int, Asked] | None = None
        self._versions: tuple[str, dict[str, int]] = ("", {})
        self._loaded: dict[str, Member] = {}
        self._comparison = Comparison("best", ())
        self._left_out = 0
        self._drawn: tuple[Comparison, Order, Compared] | None = None

    def answer(self, asked: Asked) -> Compared | None:
        """The comparison; None if it is as it was at the last question."""
        version = self._watcher.look()
        if (version, asked) == self._last:
            return None
        error = ""
        try:
            versions = self._meant(asked.filtered)
        except UsageError as mistake:
            # The filter stands in sight, so the lines that point into it are not repeated.
            error = str(mistake).split("\n")[0] + (f" — {mistake.hint}" if mistake.hint else "")
            versions = self._versions[1]
        if (asked.checkpoint, versions) != self._versions:
            self._read(versions, asked.checkpoint)
        compared = self._draw(asked, error)
        self._last = version, asked
        return compared

    def _meant(self, filtered: str) -> dict[str, int]:
        """The runs to compare, with what changes whenever one of them does."""
        if not filtered and not self._runs:
            return bulk.versions(self.home, finished=True)
        versions = bulk.versions(self.home)
        ids = self._table.ids(View(filtered)) if filtered else self._runs
        return {id: versions[id] for id in ids if id in versions and (not self._runs or id in self._runs)}

    def _read(self, versions: dict[str, int], checkpoint: str) -> None:
        """Read what is new, and compare."""
        before, known = self._versions
        pairs, alone = pair_up(query.runs(self.home, versions))
        kept = _newest(pairs, alone)
        self._left_out = len(pairs) + len(alone) - len(kept[0]) - len(kept[1])
        rows = {row.id: row for pair in kept[0] for side in pair for row in side.runs}
        rows |= {row.id: row for side in kept[1] for row in side.runs}
        same = {id for id in rows if before == checkpoint and known.get(id) == versions[id] and id in self._loaded}
        fresh = members.load_all(self.home, [row for id, row in rows.items() if id not in same], checkpoint)
        self._loaded = {id: self._loaded[id] if id in same else fresh[id] for id in rows}
        self._comparison = report.build(*kept, self._loaded, checkpoint)
        self._versions = checkpoint, versions

    def _draw(self, asked: Asked, error: str) -> Compared:
        shown = self._tables(asked)
        entries = {key(entry): entry for entry in shown.entries}
        chosen = entries.get(asked.chosen)
        return replace(
            shown,
            asked=asked,
            seeds={name: self._seeds(entries[name]) for name in asked.opened if name in entries},
            chosen=self._chosen(chosen, asked.tab) if chosen else None,
            total=query.count(self.home),
            error=error,
        )

    def _tables(self, asked: Asked) -> Compared:
        """The tables, which last until what is compared or its order changes."""
        if self._drawn is None or self._drawn[0] is not self._comparison or self._drawn[1] != asked.order:
            ordered = asked.order.apply(self._comparison)
            made = Compared(asked, ordered, grid.build(ordered), left_out=self._left_out)
            self._drawn = self._comparison, asked.order, made
        shown = self._drawn[2]
        if asked.tab == PRICE and not shown.priced:
            priced = tuple(price.prices(self.home, shown.comparison, self._loaded))
            shown = replace(shown, priced=priced, prices=price.build(shown.comparison, priced))
            self._drawn = self._comparison, asked.order, shown
        return shown

    def _seeds(self, entry: Pair | Side) -> tuple[Row, ...]:
        return seeds.lines(entry, self._comparison.metrics, self._loaded)

    def _chosen(self, entry: Pair | Side, tab: str) -> Chosen:
        curves = self._curves(entry) if tab == CURVES else ()
        twin = ""
        if isinstance(entry, Side):
            about = self.home.run(entry.runs[0]).json("run.json")
            twin = twin_command(str(about.get("command", "")), topology=self._loaded[entry.runs[0]].run.topology)
        return Chosen(key(entry), curves, twin)

    def _curves(self, entry: Pair | Side) -> tuple[Curve, ...]:
        found = series.groups(histories(self.home, [self._loaded[id].run for id in key(entry)]))
        baseline = next((group for group in found if not group.topology), None)
        train = next((group for group in found if group.topology), None)
        known = {metric for group in found for run in group.runs for metric in run.values}
        return tuple(
            Curve(
                metric,
                baseline.band(metric) if baseline else None,
                train.band(metric) if train else None,
                series.difference(baseline, train, metric) if baseline and train else None,
            )
            for metric in _worth_showing(known)
        )


def twin_command(command: str, *, topology: bool) -> str:
    """The command that makes the runs on the other side of those that `command` made; "" if it cannot be told."""
    try:
        words = shlex.split(command)
    except ValueError:
        return ""
    if words[:2] != ["trainctl", "run"] or any("topology.enabled" in word for word in words):
        return ""
    kept = [word for word in words if word not in ("--pair", "--train")]
    return shlex.join(kept if topology else [*kept, "--train"])


def _newest(
    pairs: Sequence[tuple[Group, Group]], alone: Sequence[Group]
) -> tuple[list[tuple[Group, Group]], list[Group]]:
    """The newest of both, of RUNS runs together; pairs before runs without a partner."""
    left = RUNS
    kept_pairs: list[tuple[Group, Group]] = []
    kept_alone: list[Group] = []
    for pair in reversed(pairs):
        left -= sum(len(side.runs) for side in pair)
        if left >= 0:
            kept_pairs.append(pair)
    for side in reversed(alone):
        left -= len(side.runs)
        if left >= 0:
            kept_alone.append(side)
    return kept_pairs[::-1], kept_alone[::-1]


def _worth_showing(known: set[str]) -> list[str]:
    """Natural and robust accuracy by which `best` is chosen, then losses, then training accuracies."""
    found = series.default_metrics(known)
    if "loss_robust" not in found and "loss" in known:
        found.insert(0, "loss")

    def rank(metric: str) -> tuple[int, bool]:
        place = 0 if series.is_selection(metric) else 2 if metric in series.TRAINING else 1
        return place, "natural" not in metric

    return sorted(found, key=rank)
