"""`trainctl tag`: names that runs are found by again, as tag:NAME."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, note
from trainctl.errors import UsageError
from trainctl.home import find_home


def tag(
    run: Annotated[str, typer.Argument(metavar="RUN", help="As in `trainctl ls`; may mean several.")],
    tags: Annotated[list[str], typer.Argument(metavar="TAG…", help="One or more tags.")],
    remove: Annotated[bool, typer.Option("--remove", "-r", help="Take the tags off.")] = False,
    home: HomeOption = None,
) -> None:
    """Put tags on runs, or take them off."""
    from trainctl.registry.select import some

    wanted = [check_tag(text) for text in tags]
    place = find_home(home)
    for row in some(place, [run]):
        folder = place.run(row.id)
        labels = folder.json("labels.json")
        had = labels.get("tags", folder.json("run.json").get("tags"))
        now = [text for text in had if isinstance(text, str)] if isinstance(had, list) else []
        now = [text for text in now if text not in wanted] + ([] if remove else wanted)
        folder.write_json("labels.json", {**labels, "tags": list(dict.fromkeys(now))})
        note(f"{row.name}: {' '.join(now) or 'no tags'}")


def check_tag(text: str) -> str:
    """`text` if it can be a tag, else UsageError."""
    if not text or len(text) > 60 or not text.isprintable() or any(c.isspace() or c == "," for c in text):
        raise UsageError(f"{text!r} cannot be a tag", "printable characters without spaces and commas, at most 60")
    return text
