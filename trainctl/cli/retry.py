"""`trainctl retry`: begin ended runs anew, and keep what they have."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, RunsArgument
from trainctl.errors import UsageError
from trainctl.home import find_home


def retry(
    runs: RunsArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask about runs that are done.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue them and return.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Begin ended runs anew, from epoch 0 and with the code as it is now, as a new attempt of the same run.

    Their events, log, checkpoints and evaluations are kept in attempts/ of their folders. `trainctl resume` goes on
    from the last checkpoint instead.
    """
    from trainctl.cli.attend import queue_again
    from trainctl.launch import folders
    from trainctl.registry.select import some

    place = find_home(home)
    chosen = [place.run(row.id) for row in some(place, runs)]
    for run in chosen:
        folders.check_retry(run)  # all, before the first is changed
    done = sum(run.status() == "done" for run in chosen)
    if done and not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{done} of {len(chosen)} run(s) are done, and nobody can be asked here", "say --yes")
        typer.confirm(f"{done} of {len(chosen)} run(s) are done. Train anew from epoch 0?", abort=True, err=True)
    raise typer.Exit(queue_again(place, chosen, folders.retry, detach=detach, as_json=as_json))
