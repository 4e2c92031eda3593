"""From planned runs to runs at work: the one way that the command line and the dashboard share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import folders, scheduler, slots, waiting

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned


def start(
    home: Home, plans: Sequence[Planned], *, tags: Sequence[str] = (), share: float | None, command: Sequence[str] = ()
) -> list[RunDir]:
    """Make a queued run of each plan, all or none, and see to it that they start as room comes free.

    `plans` and `share` as `slots.share_out` gives them; the rest, and the errors, as of `folders.create`.
    """
    runs = folders.create(home, plans, tags=tags, share=share, command=command)
    scheduler.ensure(home)
    return runs


def at_once(plans: Sequence[Planned], share: float | None, available: Sequence[str]) -> int:
    """How many of `plans` work at a time on a machine with the GPUs `available` that has nothing else to do."""
    queue = [(str(number), _need(plan, share, list(available))) for number, plan in enumerate(plans)]
    return sum(verdict.gpu is not None for verdict in waiting.explain(queue, [], available))


def _need(plan: Planned, share: float | None, available: list[str]) -> slots.Need:
    gpu = slots.gpu_of(plan.recipe.run.device, available)
    threads = plan.recipe.run.threads
    cores = 0.0 if gpu else min(1.0, (threads or slots.cores()) / slots.cores())
    return slots.Need(cores if share is None else share, gpu, threads)
