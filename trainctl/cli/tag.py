"""`trainctl tag`: names that runs are found by again, as tag:NAME."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, note
from trainctl.home import find_home


def tag(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As in `trainctl ls`; may mean several.")],
    tags: Annotated[list[str], typer.Argument(metavar="TAG…", help="One or more tags.")],
    remove: Annotated[bool, typer.Option("--remove", "-r", help="Take the tags off.")] = False,
    home: HomeOption = None,
) -> None:
    """Put tags on runs, or take them off."""
    from trainctl.registry import labels
    from trainctl.registry.select import some

    wanted = [labels.check_tag(text) for text in tags]
    place = find_home(home)
    for row in some(place, [run]):
        folder = place.run(row.id)
        now = labels.change(folder, remove=wanted) if remove else labels.change(folder, add=wanted)
        note(f"{row.name}: {' '.join(now.tags) or 'no tags'}")
