"""`trainctl stop`: ask, wait, and only then kill."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, RunsArgument, note
from trainctl.home import find_home


def stop(
    runs: RunsArgument,
    grace: Annotated[
        float, typer.Option(min=0.0, metavar="SECONDS", help="Time for the checkpoint; then it is killed.")
    ] = 60.0,
    home: HomeOption = None,
) -> None:
    """Stop runs; they write a checkpoint first. Queued ones are cancelled."""
    from engine.rundir import FINAL
    from trainctl.launch import processes
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    names = {row.id: row.name for row in rows}
    chosen = [place.run(row.id) for row in rows]
    at_work = [run for run in chosen if run.status() not in FINAL]
    for run in chosen:
        if run not in at_work:
            note(f"{names[run.id]} has ended already: {run.status()}")
    # The queued first, or the scheduler would start one in the place of a stopped one.
    at_work.sort(key=lambda run: run.status() != "queued")
    processes.stop(at_work, grace, say=lambda run, stage: note(f"{names[run.id]} {stage}"))
    if at_work:
        note(f"go on with: trainctl resume {' '.join(run.id for run in at_work)}")
