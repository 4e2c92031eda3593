"""What is said of one run, beside the table and above its curves."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.cli import words
from trainctl.home import Home
from trainctl.launch.follow import Follower
from trainctl.plot.series import is_selection
from trainctl.registry import query
from trainctl.registry.query import RunRow
from trainctl.tui.feed.log import last_lines

LIVE = ("starting", "running", "stopping")
Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Selected:
    """What the panel says of the selected run."""

    run: RunRow
    doing: str
    eta: float | None
    losses: str
    accuracies: str
    results: str
    reason: str
    curves: tuple[tuple[str, tuple[float, ...]], ...]
    log: tuple[str, ...]


def selected(home: Home, row: RunRow, follower: Follower, lines: int) -> Selected:
    """`row`, with the last `lines` lines of its log; `follower` has been polled."""
    progress = follower.progress
    names = [name for name in query.metrics(home, row.id) if is_selection(name)]
    loss = "loss_robust" if "loss_robust" in progress.latest else "loss"
    wanted = [loss, *sorted(names, key=lambda name: "natural" in name)[:1]]
    curves = [(name, tuple(y for _, y in points(home, row, name, "epoch"))) for name in wanted]
    latest = progress.latest
    speed = words.speed(latest) if row.status in LIVE else ""
    results = (f"{which}: {words.results(values)}" for which, values in sorted(progress.evals.items()))
    return Selected(
        row, words.state(row.status, progress), progress.eta() if row.status == "running" else None,
        words.losses(latest), " · ".join(filter(None, (words.training(latest), words.selection(latest), speed))),
        " │ ".join(results), follower.reason(), tuple(curves), last_lines(home.run(row.id).log, lines),
    )  # fmt: skip


def points(home: Home, row: RunRow, metric: str, kind: str) -> Points:
    """The finite values of a curve as (epoch or step, value)."""
    found = query.points(home, row.id, metric, kind)
    at = [(point.epoch if kind == "epoch" else point.step, point.value) for point in found]
    return tuple((float(x), y) for x, y in at if x is not None and y is not None)
