"""The accuracy by which `best` is chosen, over the epochs, of many runs in one question."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

from trainctl.home import Home
from trainctl.registry import query

# A robust accuracy before the natural one, which hardly tells robust networks apart.
NAMES = tuple(f"{split}_{name}" for split in ("validation", "test") for name in ("pgd10", "pgd20", "cw20", "natural"))


def curves(home: Home, ids: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """The finite values, in percent and in the order of epochs, for each run of `ids` that has any."""
    question = f"""
        SELECT run, metric, value FROM points
        WHERE run {query.AMONG} AND kind = 'epoch' AND metric {query.AMONG} ORDER BY run, metric, step"""
    found: dict[str, dict[str, list[float]]] = {}
    for run, metric, value in query.rows(home, question, (json.dumps(list(ids)), json.dumps(NAMES))):
        if value is not None and math.isfinite(value):
            found.setdefault(run, {}).setdefault(metric, []).append(value)
    return {run: tuple(of[min(of, key=NAMES.index)]) for run, of in found.items()}
