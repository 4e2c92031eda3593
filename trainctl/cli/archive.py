"""`trainctl archive`: put runs out of sight without losing them."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, RunsArgument, note
from trainctl.home import find_home


def archive(
    runs: RunsArgument,
    undo: Annotated[bool, typer.Option("--undo", "-u", help="Bring them back.")] = False,
    home: HomeOption = None,
) -> None:
    """Hide runs from lists, filters and the comparison, or bring them back.

    Nothing of them is deleted, and their id or name means them as before. `trainctl ls --archived` lists them too, and
    the filter `archived = on` finds them alone.
    """
    from trainctl.registry import labels
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs, archived=undo)
    changed = [row for row in rows if labels.read(place.run(row.id)).archived == undo]
    for row in changed:
        labels.change(place.run(row.id), archived=not undo)
    note(f"{len(changed)} run(s) {'brought back' if undo else 'archived'}")
