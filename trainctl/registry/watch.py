"""Keeps the index up to date for somebody who looks all the time."""

from __future__ import annotations

from trainctl.home import Home
from trainctl.registry import ingest


class Watch:
    """Looks at the run folders of `home`. One for a whole process; threads may share it."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.version = 0
        """Counts the looks that found something new, so that an asker can tell whether it knows all."""

    def look(self) -> int:
        """Bring the index up to date; returns `version`."""
        ingest.refresh(self.home)
        self.version += 1
        return self.version
