"""`trainctl resume`: queue ended runs again, each to go on from its last checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, RunsArgument, note
from trainctl.errors import UsageError
from trainctl.home import find_home


def resume(
    runs: RunsArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue them and return.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Go on with stopped, failed or lost runs, from the last checkpoint or else from the beginning."""
    from trainctl.cli.attend import Presses, attend
    from trainctl.launch import folders, scheduler
    from trainctl.registry.select import resolve

    place = find_home(home)
    rows = resolve(place, runs)
    if not rows:
        raise UsageError(f"no run fits {' '.join(runs)}", "`trainctl ls` lists them")
    chosen = [place.run(row.id) for row in rows]
    for run in chosen:
        folders.check_requeue(run)  # all, before the first is changed
    with Presses() as presses:
        for run in chosen:
            folders.requeue(run)
        scheduler.ensure(place)
        if not detach:
            raise typer.Exit(attend(place, chosen, presses=presses, as_json=as_json))
    note(f"watch: trainctl watch {' '.join(run.id for run in chosen)}")
