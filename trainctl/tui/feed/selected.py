"""What is said of one run, beside the table and above its curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.rundir import AT_WORK
from trainctl.cli import words
from trainctl.home import Home
from trainctl.plot.series import is_selection
from trainctl.registry import query
from trainctl.registry.progress import Progress
from trainctl.registry.query import RunRow
from trainctl.registry.series import Reader, Wanted
from trainctl.tui.feed.log import last_lines

POINTS = 120  # of a sparkline


@dataclass(frozen=True)
class Selected:
    """What the panel says of the selected run. `stage` is the last that was written, by whomever."""

    run: RunRow
    doing: str
    stage: str
    eta: float | None
    losses: str
    accuracies: str
    results: str
    reason: str
    curves: tuple[tuple[str, tuple[float, ...]], ...]
    log: tuple[str, ...]


def selected(home: Home, row: RunRow, progress: Progress, lines: int, reader: Reader | None = None) -> Selected:
    """`row`, which stands at `progress`, with the last `lines` lines of its log (0: none are read).

    A `reader` that is kept from one call to the next reads only what is new.
    """
    latest = progress.latest
    loss = "loss_robust" if "loss_robust" in latest else "loss"
    chosen = sorted((name for name in latest if is_selection(name)), key=lambda name: ("natural" in name, name))
    speed = words.speed(latest) if row.status in AT_WORK else ""
    results = (f"{which}: {words.results(values)}" for which, values in sorted(progress.evals.items()))
    stage = words.STAGES.get(progress.stage, progress.stage)
    return Selected(
        row, words.state(row.status, progress), stage, progress.eta() if row.status == "running" else None,
        words.losses(latest), " · ".join(filter(None, (words.training(latest), words.selection(latest), speed))),
        " │ ".join(results), reason(home, row), _sparklines(reader or Reader(home), row, [loss, *chosen[:1]]),
        last_lines(home.run(row.id).log, lines) if lines else (),
    )  # fmt: skip


def reason(home: Home, row: RunRow) -> str:
    """Why the run ended as it did, with what to do if that is known."""
    ended = home.run(row.id).json("exit.json")
    return "; ".join(str(ended[key]) for key in ("reason", "hint") if ended.get(key))


def current(home: Home, run: str) -> Progress:
    """Where a run stands, as far as the index has read its events."""
    return query.progress(home, [run]).get(run) or Progress()


def _sparklines(reader: Reader, row: RunRow, metrics: Sequence[str]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    curves = reader.read([Wanted(row.id, metric, "epoch", "epoch", buckets=POINTS) for metric in metrics])
    return tuple(
        (metric, tuple(bucket.mean for bucket in curve.buckets if bucket.n))
        for metric, curve in zip(metrics, curves, strict=True)
    )
