"""`trainctl rm`: delete run folders, after asking."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from engine.rundir import AT_WORK
from trainctl.cli.common import HomeOption, RunsArgument, note, printable
from trainctl.errors import UsageError
from trainctl.home import find_home

SHOWN = 20


def rm(
    runs: RunsArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Stop those at work first.")] = False,
    home: HomeOption = None,
) -> None:
    """Delete runs with their checkpoints. There is no way back."""
    from trainctl.launch import folders, processes
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    at_work = [row for row in rows if place.run(row.id).status() in AT_WORK]
    if at_work and not force:
        names = ", ".join(row.name for row in at_work[:SHOWN])
        raise UsageError(f"at work: {names}", "stop them first with `trainctl stop`, or delete with --force")
    for row in rows[:SHOWN]:
        note(f"{row.id}  {row.name}  {row.status}")
    if len(rows) > SHOWN:
        note(f"… and {len(rows) - SHOWN} more")
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here", "say --yes")
        typer.confirm(printable(f"Delete {len(rows)} run(s) of {place.path}?"), abort=True, err=True)
    processes.stop([place.run(row.id) for row in at_work])
    for row in rows:
        folders.remove(place, place.run(row.id))
    note(f"{len(rows)} run(s) deleted")
