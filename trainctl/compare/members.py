"""A run with all that a comparison reads about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainctl.home import Home
from trainctl.registry import bulk, ingest, query
from trainctl.registry.query import Evaluation, RunRow
from trainctl.registry.threats import Threat

SECONDS = "seconds_per_epoch"

# Of an eval event: what belongs to this one measurement and not to the threat model. The protocol's name is left out
# because what it stands for is spelled out beside it, and natural accuracy does not depend on it.
_INCIDENTAL = {"t", "epoch", "step", "rule", "seconds", "seed", "protocol", "batch_size", "measured_on"}


@dataclass(frozen=True)
class Member:
    """One run, its recipe with dotted keys, its env.json, and the evaluations of the checkpoint in question."""

    run: RunRow
    settings: dict[str, Any]
    env: dict[str, Any]
    evals: dict[str, Evaluation]

    def value(self, metric: str) -> float | None:
        """The number behind a column; None if this run does not have it."""
        if metric == SECONDS:
            return self.run.seconds_per_epoch
        found = self.evals.get(metric)
        return None if found is None else found.value

    def threat(self, metric: str) -> Threat | None:
        """What the number was measured under; None if there is none."""
        found = self.evals.get(metric)
        if found is None or found.value is None:
            return None
        plain = {key: value for key, value in found.settings.items() if key not in _INCIDENTAL}
        return {key: value for key, value in plain.items() if not isinstance(value, (list, dict))} | {"n": found.n}

    @property
    def rule(self) -> str:
        """The rule that chose the checkpoint."""
        return next((str(found.settings["rule"]) for found in self.evals.values() if "rule" in found.settings), "")


def load(home: Home, run: RunRow, checkpoint: str) -> Member:
    """Read the folder of `run` and its evaluations of `checkpoint` ("best" or "last")."""
    folder = home.run(run.id)
    evals = {found.metric: found for found in query.evals(home, run.id) if found.checkpoint == checkpoint}
    return Member(run, ingest.read_settings(folder), folder.json("env.json"), evals)


def load_all(home: Home, runs: Iterable[RunRow], checkpoint: str) -> dict[str, Member]:
    """The same for many runs, by id, with the recipes as the index has them."""
    rows = {run.id: run for run in runs}
    settings, evals = bulk.settings(home, rows), bulk.evals(home, rows, checkpoint)
    return {
        id: Member(
            run,
            settings.get(id, {}),
            home.run(id).json("env.json"),
            {found.metric: found for found in evals.get(id, [])},
        )
        for id, run in rows.items()
    }
