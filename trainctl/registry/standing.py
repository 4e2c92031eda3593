"""What already stands in the home when more runs are to be started."""

from __future__ import annotations

from engine.rundir import UNFINISHED
from trainctl.home import Home
from trainctl.registry import query


def done(home: Home) -> dict[tuple[str, int | None], str]:
    """Id of the newest run that is done, by group and seed. The index is taken as it is."""
    question = """SELECT "group", seed, id FROM runs WHERE status = 'done' ORDER BY created, id"""
    return {(group, seed): run for group, seed, run in query.rows(home, question)}


def ahead(home: Home) -> int:
    """How many runs are queued or at work."""
    question = f"SELECT count(*) FROM runs WHERE status IN ({', '.join('?' * len(UNFINISHED))})"
    return sum(count for (count,) in query.rows(home, question, UNFINISHED))
