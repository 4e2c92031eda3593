"""What the index knows of many runs, each in one question: a comparison asks about hundreds at once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from trainctl.home import Home
from trainctl.registry import query
from trainctl.registry.plain import rank
from trainctl.registry.query import AMONG, Evaluation


def versions(home: Home, *, finished: bool = False) -> dict[str, int]:
    """A number for each run, which is another one after every change of it.

    With `finished` only of those that are done, have trained, and are not archived.
    """
    # A row that changes is replaced, and so gets a new rowid.
    only = " WHERE status = 'done' AND epoch > 0 AND NOT archived" if finished else ""
    return dict(query.rows(home, f"SELECT id, rowid FROM runs{only}"))


def settings(home: Home, runs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The recipes of `runs` with dotted keys, by id."""
    question = f"SELECT id, settings FROM runs WHERE id {AMONG}"
    return dict(query.made(home, lambda row: (row[0], query.stored(row[1])), question, (json.dumps(list(runs)),)))


def evals(home: Home, runs: Iterable[str], checkpoint: str) -> dict[str, list[Evaluation]]:
    """The evaluations of a checkpoint of `runs`, by id, each list in the order of the tables."""
    question = f"SELECT run, checkpoint, metric, value, n, settings FROM evals WHERE run {AMONG} AND checkpoint = ?"
    found: dict[str, list[Evaluation]] = {}
    for one in query.made(home, query.evaluation, question, (json.dumps(list(runs)), checkpoint)):
        found.setdefault(one.run, []).append(one)
    for listed in found.values():
        listed.sort(key=lambda one: rank(one.metric))
    return found
