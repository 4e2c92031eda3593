"""`trainctl stop`: ask, wait, and only then kill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trainctl.cli.common import HomeOption, RunsArgument, note
from trainctl.errors import TrainctlError
from trainctl.home import find_home

if TYPE_CHECKING:
    from engine.rundir import RunDir


def stop(
    runs: RunsArgument,
    grace: Annotated[
        float, typer.Option(min=0.0, max=86400.0, metavar="SECONDS", help="Time for the checkpoint; then it is killed.")
    ] = 60.0,
    home: HomeOption = None,
) -> None:
    """Stop runs; they write a checkpoint first. Queued ones are cancelled."""
    from engine.rundir import FINAL
    from trainctl.launch import again, processes, queue, scheduler
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    names = {row.id: row.name for row in rows}
    chosen = [place.run(row.id) for row in rows]
    spared: list[RunDir] = []
    errors: list[TrainctlError] = []
    for run in chosen:
        try:
            if run.status() in FINAL and again.spare(run):
                spared.append(run)
        except TrainctlError as error:  # the others are stopped all the same
            errors.append(error)
    at_work = [run for run in chosen if run.status() not in FINAL]
    for run in chosen:
        if run not in at_work:
            more = "; the queue was to retry it, and will not now" if run in spared else ""
            note(f"{names[run.id]} has ended already: {run.status()}{more}")
    # The queued first, or the scheduler would start one in the place of a stopped one.
    at_work.sort(key=lambda run: run.status() != "queued")
    processes.stop(at_work, grace, say=lambda run, stage: note(f"{names[run.id]} {stage}"))
    if left := [run.id for run in chosen if run in (*spared, *at_work) and run.path.exists()]:
        note(f"go on with: trainctl resume {' '.join(left)}")
    if at_work and queue.queued(place):
        scheduler.ensure(place)  # there is room for them now
    if errors:
        raise errors[0]
