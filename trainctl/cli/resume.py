"""`trainctl resume`: queue ended runs again, each to go on from its last checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, RunsArgument, note
from trainctl.home import find_home


def resume(
    runs: RunsArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue them and return.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Go on with stopped, failed or lost runs, from the last checkpoint or else from the beginning."""
    from trainctl.cli.attend import Presses, attend, emit_queued
    from trainctl.launch import folders, scheduler
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    chosen = [place.run(row.id) for row in rows]
    for run in chosen:
        folders.check_requeue(run)  # all, before the first is changed
    with Presses() as presses:
        for run in chosen:
            folders.requeue(run)
        scheduler.ensure(place)
        if not detach:
            raise typer.Exit(attend(place, chosen, presses=presses, as_json=as_json))
    if as_json:
        emit_queued(chosen)
    note(f"watch: trainctl watch {' '.join(run.id for run in chosen)}")
