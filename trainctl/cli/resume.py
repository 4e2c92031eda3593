"""`trainctl resume`: queue ended runs again, each to go on from its last checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, RunsArgument
from trainctl.home import find_home


def resume(
    runs: RunsArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue them and return.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Go on with stopped, failed or lost runs, from the last checkpoint or else from the beginning."""
    from trainctl.cli.attend import queue_again
    from trainctl.launch import folders
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    chosen = [place.run(row.id) for row in rows]
    for run in chosen:
        folders.check_requeue(run)  # all, before the first is changed
    raise typer.Exit(queue_again(place, chosen, folders.requeue, detach=detach, as_json=as_json))
