"""`trainctl reindex`: the index from the run folders."""

from __future__ import annotations

from trainctl.cli.common import HomeOption, note
from trainctl.home import find_home, index_place
from trainctl.registry import ingest


def reindex(home: HomeOption = None) -> None:
    """Build the index again from the run folders, which stay as they are."""
    place = find_home(home)
    number = ingest.rebuild(place)
    note(f"{number} run{'' if number == 1 else 's'} in {place.index}")
    if reason := index_place(place)[1]:
        note(f"the index is there because {reason}, where SQLite cannot share it; the runs stay in {place.runs}")
