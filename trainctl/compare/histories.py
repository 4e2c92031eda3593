"""What the runs of a comparison measured epoch by epoch, for its curves."""

from __future__ import annotations

from collections.abc import Iterable

from trainctl.home import Home
from trainctl.plot.series import History
from trainctl.registry import bulk, query
from trainctl.registry.query import RunRow


def histories(home: Home, runs: Iterable[RunRow]) -> list[History]:
    """The curves of `runs`, with the threat model of the accuracies measured while training."""
    rows = list(runs)
    settings = bulk.settings(home, [row.id for row in rows])
    return [
        History(
            name=row.name,
            group=row.group or row.id,
            pair=row.pair or row.id,
            topology=row.topology,
            seed=row.seed if row.seed is not None else 0,
            threat=_threat(settings.get(row.id, {})),
            values={
                metric: {
                    point.epoch: point.value
                    for point in query.points(home, row.id, metric)
                    if point.epoch is not None and point.value is not None
                }
                for metric in query.metrics(home, row.id).get("epoch", ())
            },
        )
        for row in rows
    ]


def _threat(settings: dict[str, object]) -> str:
    """eps 0 stands for the protocol's own."""
    protocol, eps = settings.get("eval.protocol"), settings.get("eval.eps")
    if not protocol:
        return ""
    return f"l∞, {protocol} protocol" + (f", ε = {eps:g}" if isinstance(eps, (int, float)) and eps else "")
