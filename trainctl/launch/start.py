"""From planned runs to runs at work: the one way that the command line and the dashboard share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import folders, queue, scheduler, slots, waiting

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned


def start(
    home: Home,
    plans: Sequence[Planned],
    *,
    tags: Sequence[str] = (),
    share: float | None,
    command: Sequence[str] = (),
    place: queue.Place = queue.Place(),  # noqa: B008 - it is frozen
) -> list[RunDir]:
    """Make a queued run of each plan, all or none, and see to it that they start as room comes free.

    `plans` and `share` as `slots.share_out` gives them, `place` is theirs in the queue; the rest, and the errors, as of
    `folders.create`.
    """
    runs = folders.create(home, plans, tags=tags, share=share, command=command, beside=queue.beside(place))
    scheduler.ensure(home)
    return runs


def at_once(plans: Sequence[Planned], share: float | None, available: Sequence[str]) -> int:
    """How many of `plans` work at a time on a machine with the GPUs `available` that has nothing else to do."""
    wants = [plan.recipe.run for plan in plans]
    needs = [slots.asked(run.device, run.threads, run.gpus, share, available) for run in wants]
    verdicts = waiting.explain([(str(number), need) for number, need in enumerate(needs)], [], available)
    return sum(verdict.gpu is not None for verdict in verdicts)
