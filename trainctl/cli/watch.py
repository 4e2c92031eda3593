"""`trainctl watch`: the live view of runs that somebody started earlier."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, note
from trainctl.home import find_home


def watch(
    runs: Annotated[list[str], typer.Argument(metavar="[RUN…]", show_default="all that have not ended")] = [],  # noqa: B006
    home: HomeOption = None,
) -> None:
    """Watch runs live until they end. Ctrl-C ends the view; the runs go on."""
    from engine.rundir import FINAL
    from trainctl.cli.attend import attend
    from trainctl.registry.select import resolve

    place = find_home(home)
    if runs:
        chosen = [place.run(row.id) for row in resolve(place, runs)]
    else:
        chosen = [run for run in place.run_dirs() if run.status() not in FINAL]
    if not chosen:
        note("no run fits" if runs else "nothing is queued or running")
        return
    raise typer.Exit(attend(place, chosen))
