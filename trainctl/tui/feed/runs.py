"""The runs, for the home screen."""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch.follow import Follower
from trainctl.registry import ingest, query, select
from trainctl.registry.query import RunRow
from trainctl.tui.feed.selected import LIVE, Selected, selected

WINDOW = 200  # rows in the table


@dataclass(frozen=True)
class Row:
    """A line of the table: a run and, while it is at work, the seconds to the end of its training."""

    run: RunRow
    eta: float | None


@dataclass(frozen=True)
class Overview:
    """The home screen: the newest runs that fit the filter, and the selected one. `error` is the filter's."""

    rows: tuple[Row, ...]
    fitting: int
    total: int
    counts: tuple[tuple[str, int], ...]
    error: str
    selected: Selected | None


class RunsFeed:
    """Answers of the home screen; remembers how far it has read. Used by one thread at a time."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._followers: dict[str, Follower] = {}

    def overview(self, filtered: str, selected_id: str) -> Overview:
        """The newest runs that the selector `filtered` means ("" for all), and the run of the id `selected_id`."""
        ingest.refresh(self.home)
        every = query.runs(self.home)
        fitting, error = every, ""
        if filtered:
            try:
                fitting = select.resolve(self.home, [filtered])
            except UsageError as mistake:
                # The filter stands in sight, so the lines that point into it are not repeated.
                error = str(mistake).split("\n")[0] + (f" — {mistake.hint}" if mistake.hint else "")
        window = fitting[: -WINDOW - 1 : -1]
        counts: dict[str, int] = {}
        for row in every:
            counts[row.status] = counts.get(row.status, 0) + 1
        chosen = next((row for row in window if row.id == selected_id), window[0] if window else None)
        kept = {row.id for row in window if row.status in LIVE} | ({chosen.id} if chosen else set())
        self._followers = {run: follower for run, follower in self._followers.items() if run in kept}
        return Overview(
            tuple(Row(row, self._eta(row)) for row in window), len(fitting), len(every), tuple(counts.items()), error,
            selected(self.home, chosen, self._follow(chosen), 40) if chosen else None,
        )  # fmt: skip

    def _follow(self, row: RunRow) -> Follower:
        follower = self._followers.setdefault(row.id, Follower(self.home.run(row.id)))
        follower.poll()
        return follower

    def _eta(self, row: RunRow) -> float | None:
        return self._follow(row).progress.eta() if row.status == "running" else None
