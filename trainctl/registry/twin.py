"""The run on the other side of a pair."""

from __future__ import annotations

from trainctl.home import Home
from trainctl.registry import query
from trainctl.registry.query import RunRow


def twin(home: Home, row: RunRow) -> RunRow | None:
    """The newest run of the same pair and seed with TRAIN if `row` has it not, or without; None if there is none."""
    if not row.pair:
        return None
    found = query._select(
        home,
        "SELECT id FROM runs WHERE pair = ? AND seed IS ? AND topology = ? ORDER BY created DESC, id DESC LIMIT 1",
        (row.pair, row.seed, not row.topology),
    )
    return next(iter(query.runs(home, [run for (run,) in found])), None)
