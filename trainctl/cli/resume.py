"""`trainctl resume`: queue ended runs again, each to go on from its last checkpoint."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, RunsArgument
from trainctl.home import find_home


def resume(
    runs: RunsArgument,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue them and return.")] = False,
    as_json: JsonOption = False,
    new_code: Annotated[
        bool, typer.Option("--new-code", help="With the code as it is now, not as it was when they were queued.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """Go on with stopped, failed or lost runs, from the last checkpoint or else from the beginning.

    They go on with the code that they began with, bit for bit, also if the code has been changed since.
    """
    from trainctl.cli.attend import queue_again
    from trainctl.launch import folders
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    chosen = [place.run(row.id) for row in rows]
    for run in chosen:
        folders.check_requeue(run, new_code=new_code)  # all, before the first is changed
    queue = partial(folders.requeue, new_code=new_code)
    raise typer.Exit(queue_again(place, chosen, queue, detach=detach, as_json=as_json))
