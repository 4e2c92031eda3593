"""`trainctl note`: a sentence about a run, for yourself in three months."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, printable
from trainctl.errors import UsageError
from trainctl.home import find_home

LONGEST = 10_000


def note(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As in `trainctl ls`; may mean several.")],
    text: Annotated[
        str | None,
        typer.Argument(metavar="[TEXT]", help='The note; "" deletes it, nothing prints it.', show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Write a note on a run, or print it."""
    from trainctl.registry.select import some

    if text is not None and len(text) > LONGEST:
        raise UsageError(f"the note has {len(text)} characters, more than {LONGEST}")
    place = find_home(home)
    for row in some(place, [run]):
        folder = place.run(row.id)
        labels = folder.json("labels.json")
        if text is None:
            print(printable(f"{row.name}: {labels['note']}" if labels.get("note") else f"{row.name}: no note"))
        else:
            folder.write_json("labels.json", {**labels, "note": text})
