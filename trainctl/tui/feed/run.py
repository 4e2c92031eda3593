"""One run, for the run screen: where it stands, its curves and those of its pair's other run, its records."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.plot.series import is_selection
from trainctl.plot.titles import title
from trainctl.registry import query
from trainctl.registry.query import RunRow
from trainctl.registry.series import Bucket, Reader, Wanted
from trainctl.registry.watch import Watch
from trainctl.tui.feed import records
from trainctl.tui.feed.records import Record, Results
from trainctl.tui.feed.selected import Selected, current, selected

UNITS = ("epoch", "step", "time")
MOST = 6
"""Curves of one side in a chart."""
TWIN_AGE = 5.0
"""Seconds for which the other run of the pair is taken for granted: to look for it all runs must be read."""
PERCENT = "%"
LOSSES = ("loss", "loss_robust", "loss_topology", "loss_standard")  # in front of the others


@dataclass(frozen=True)
class Ask:
    """What is to be seen: a tab, and of its charts x ("" for what suits the run) from `left` to `right`."""

    tab: str = "curves"
    unit: str = ""
    left: float | None = None
    right: float | None = None
    buckets: int = 200
    twin: bool = True


@dataclass(frozen=True)
class Curve:
    """A metric of the run, or if `other` of its pair's other run."""

    label: str
    other: bool
    buckets: tuple[Bucket, ...]


@dataclass(frozen=True)
class Panel:
    """What is drawn in one chart."""

    title: str
    y_unit: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class RunView:
    """The run screen. Only what the tab shows is there; `unit` is what x counts, and `extent` from where to where."""

    ask: Ask
    selected: Selected
    twin: RunRow | None
    unit: str = ""
    panels: tuple[Panel, ...] = ()
    extent: tuple[float, float] | None = None
    recipe: Record | None = None
    results: Results | None = None
    environment: Record | None = None


class RunFeed:
    """Answers of the run screen; remembers what it has read. Used by one thread at a time."""

    def __init__(self, home: Home, run_id: str, watch: Watch | None = None) -> None:
        self.home = home
        self._run_id = run_id
        self._watch = watch or Watch(home)
        self._reader, self._sparklines = Reader(home), Reader(home)
        self._answered: object = None
        self._twin: tuple[float, str] = (0.0, "")

    def run(self, ask: Ask) -> RunView | None:
        """What `ask` wants to see; None if it is what was answered last. UsageError if the run has gone."""
        version = self._watch.look()
        minute = int(time.time() // 60) if ask.tab == "results" else 0  # ages are told in minutes
        if self._answered == (version, ask, minute):
            return None
        row = next(iter(query.runs(self.home, [self._run_id])), None)
        self._answered = (version, ask, minute)
        if row is None:
            raise UsageError(f"run {self._run_id} has gone", "esc leads back to the runs")
        other = self._other(row)
        said = selected(self.home, row, current(self.home, row.id), 0, self._sparklines)
        if ask.tab == "curves":
            return self._curves(ask, said, other)
        return RunView(
            ask, said, other,
            recipe=records.recipe(self.home, row) if ask.tab == "recipe" else None,
            results=records.results(self.home, row) if ask.tab == "results" else None,
            environment=records.environment(self.home, row) if ask.tab == "system" else None,
        )  # fmt: skip

    def _other(self, row: RunRow) -> RunRow | None:
        looked, run = self._twin
        if time.monotonic() - looked > TWIN_AGE or not looked:
            found = query.twin(self.home, row)
            self._twin = (time.monotonic(), found.id if found else "")
            return found
        return next(iter(query.runs(self.home, [run])), None) if run else None

    def _curves(self, ask: Ask, said: Selected, other: RunRow | None) -> RunView:
        runs = [said.run, *([other] if other and ask.twin else [])]
        unit = ask.unit or ("epoch" if said.run.epoch > 1 else "step")
        known = [query.metrics(self.home, run.id) for run in runs]
        groups = list(charts({metric for names in known for found in names.values() for metric in found}))
        wanted = {
            (number, metric, kind): Wanted(run.id, metric, kind, unit, ask.left, ask.right, ask.buckets)
            for number, (run, names) in enumerate(zip(runs, known, strict=True))
            for _, _, metrics in groups
            for metric in metrics
            for kind in kinds(names, metric, unit)
        }
        read = dict(zip(wanted, self._reader.read(list(wanted.values())), strict=True))
        panels = []
        for heading, y_unit, metrics in groups:
            curves = [
                Curve(_label(metric), bool(number), buckets)
                for metric in metrics
                for number in range(len(runs))
                if (
                    buckets := tuple(
                        b for key, found in read.items() if key[:2] == (number, metric) for b in found.buckets
                    )
                )
            ]
            if curves:
                panels.append(Panel(heading, y_unit, tuple(curves)))
        ends = [
            x for found in read.values() if found.buckets or ask.left is not None for x in (found.first, found.last)
        ]
        ends = [x for x in ends if x == x]
        return RunView(ask, said, other, unit, tuple(panels), (min(ends), max(ends)) if ends else None)


def kinds(names: Mapping[str, Sequence[str]], metric: str, unit: str) -> list[str]:
    """Of which events the curve of a metric is made, in the order in which they came.

    Over epochs it is the means of the epochs of training, or of M's alone as long as there are no others, since
    their epochs are counted apart. Steps and time go through both stages, step by step if the metric is measured so.
    """
    if unit == "epoch":
        chosen = "epoch" if "epoch" in names else "pretrain-epoch"
        return [chosen] if metric in names.get(chosen, ()) else []
    for pair in (("pretrain-step", "step"), ("pretrain-epoch", "epoch")):
        found = [kind for kind in pair if metric in names.get(kind, ())]
        if found:
            return found
    return []


def charts(metrics: set[str]) -> Iterator[tuple[str, str, list[str]]]:
    """(heading, unit of y, metrics) of each chart, the most telling first."""
    losses = [name for name in metrics if name == "loss" or name.startswith("loss_")]
    losses.sort(key=lambda name: (LOSSES.index(name) if name in LOSSES else len(LOSSES), name))
    training = sorted(name for name in metrics if name.startswith("train_"))
    rest = metrics.difference(losses, training)
    yield "losses", "", losses[:MOST]
    for split in ("validation", "test"):
        chosen = sorted(name for name in rest if is_selection(name) and name.startswith(split))
        rest.difference_update(chosen)
        yield f"accuracy, {split}", PERCENT, chosen[:MOST]
    yield "accuracy, training", PERCENT, training[:MOST]
    for metric in ("l_tp", "lr", "images_per_second"):
        yield HEADINGS.get(metric, title(metric)), "", sorted(rest & {metric})
        rest.discard(metric)
    spent = [name for name in SPENT if name in rest]
    rest.difference_update(spent)
    yield "time of an epoch", "s", spent
    for metric in sorted(rest):
        yield title(metric), "", [metric]


HEADINGS = {"images_per_second": "images per second", "l_tp": "L_TP"}
SPENT = {"seconds": "training", "selection_seconds": "the look for best"}


def _label(metric: str) -> str:
    """`robust` of loss_robust, `natural` of validation_natural."""
    head, _, rest = metric.partition("_")
    if metric == "loss":
        return "total"
    if metric in SPENT:
        return SPENT[metric]
    return rest if rest and (head in ("loss", "train") or is_selection(metric)) else metric
