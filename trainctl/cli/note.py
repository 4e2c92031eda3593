"""`trainctl note`: a sentence about a run, for yourself in three months."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, printable
from trainctl.home import find_home


def note(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As in `trainctl ls`; may mean several.")],
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help='The note; "" deletes it, nothing prints it.', show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Write a note on a run, or print it."""
    from trainctl.registry import labels
    from trainctl.registry.select import some

    if text is not None:
        labels.check_note(text)
    place = find_home(home)
    for row in some(place, [run]):
        if text is None:
            print(printable(f"{row.name}: {labels.read(place.run(row.id)).note or 'no note'}"))
        else:
            labels.change(place.run(row.id), note=text)
