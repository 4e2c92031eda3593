"""The order of the queue: which queued run comes first, which are held, and whether the whole queue is paused.

Every queued run may have a queue.json (see `Place`), and a file `paused` in the home stops the whole queue. Nothing
else is written down, and nobody writes these files but this module. They are replaced whole, so that a crash leaves
the old place or the new one; and a run that was started while its place was changed is simply no longer queued.
After a change call `scheduler.ensure`, which wakes the scheduler or starts one.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeGuard

from engine.rundir import RunDir, sync_folder
from engine.rundir import replace as write
from trainctl.errors import UsageError, refused
from trainctl.home import Home

FILE = "queue.json"
HIGHEST = 1000  # no run is given a larger priority, nor a lower one than -HIGHEST
LARGEST = 1e12  # no position is beyond it; times in seconds since 1970 are its usual size
DIRECTIONS = ("first", "last", "up", "down")


@dataclass(frozen=True)
class Place:
    """Where a run stands in the queue: larger priorities first, then by `position`; None: the time it was made."""

    priority: int = 0
    position: float | None = None
    held: bool = False


def place(run: RunDir) -> Place:
    """The place of `run`; what its queue.json does not say properly is as if it said nothing."""
    found = run.json(FILE)
    priority, position = found.get("priority"), found.get("position")
    return Place(
        priority if _number(priority) and isinstance(priority, int) else 0,
        float(position) if _number(position) else None,
        found.get("held") is True,
    )


def order(runs: Iterable[RunDir]) -> list[RunDir]:
    """`runs` in the order in which they start."""
    return [run for _, run in sorted(((_key(run, place(run)), run) for run in runs), key=lambda item: item[0])]


def queued(home: Home) -> list[RunDir]:
    """The queued runs of `home`, held ones too, in their order."""
    left = (run for run in home.run_dirs() if not os.path.exists(f"{run.path}/exit.json"))  # noqa: PTH110 - never raises
    return order(run for run in left if run.status() == "queued")


def hold(runs: Sequence[RunDir], on: bool) -> None:
    """Let others pass `runs` until they are let go (`on` False). Errors, here and below: UsageError if one is not
    queued, before any is changed; MachineError if it cannot be written.
    """
    check(runs)
    for run in runs:
        _put(run, replace(place(run), held=on))


def prioritize(runs: Sequence[RunDir], priority: int) -> None:
    """Give `runs` a priority: larger ones start first, the usual one is 0."""
    if abs(priority) > HIGHEST:
        raise UsageError(f"no run can have the priority {priority}", f"give a number from {-HIGHEST} to {HIGHEST}")
    check(runs)
    for run in runs:
        _put(run, replace(place(run), priority=priority))


def move(home: Home, run: RunDir, to: str) -> bool:
    """Move a run among the queued ones: `to` is one of DIRECTIONS. False if it stands at that end already.

    Past a run of another priority it takes that priority, so that the first is really the first.
    """
    if to not in DIRECTIONS:
        raise UsageError(f"no such direction: {to!r}", f"one of {', '.join(DIRECTIONS)}")
    check([run])
    queue = queued(home)
    at = next((index for index, other in enumerate(queue) if other.id == run.id), len(queue))
    others = [other for other in queue if other.id != run.id]
    goal = {"first": 0, "last": len(others), "up": max(0, at - 1), "down": min(len(others), at + 1)}[to]
    if goal == at:
        return False
    passed = others[goal if goal < at else goal - 1]
    priority = place(passed).priority
    before = _position(others[goal - 1], priority) if goal > 0 else None
    after = _position(others[goal], priority) if goal < len(others) else None
    position = _between(before, after)
    if position is None:
        _spread([*others[:goal], run, *others[goal:]], priority, run)
    else:
        _put(run, replace(place(run), priority=priority, position=position))
    return True


def rank(found: Place, created: Any, run: str) -> tuple[int, float, str]:
    """What the queue is sorted by: a run's place, when it was made, and its id."""
    position = found.position
    if position is None:
        position = float(created) if _number(created) else 0.0
    return -found.priority, position, run


def release(run: RunDir) -> None:
    """A run that is queued again is not held, whatever it was when it was queued before."""
    if place(run).held:
        _put(run, replace(place(run), held=False))


def beside(place: Place) -> dict[str, str]:
    """The file that a run which is made with this place has beside its others, by name."""
    return {FILE: _text(place)} if place != Place() else {}


def pause(home: Home) -> None:
    """Start nothing new until `unpause`; runs at work go on."""
    home.create()
    try:
        write(home.path / "paused", time.strftime("%Y-%m-%d %H:%M:%S\n"))
    except OSError as error:
        raise refused(f"cannot write {home.path / 'paused'}", error) from None


def unpause(home: Home) -> None:
    """Let the queue go on, and see to it that a scheduler does."""
    from trainctl.launch import scheduler

    try:
        (home.path / "paused").unlink(missing_ok=True)
        if home.path.exists():
            sync_folder(home.path)
    except OSError as error:
        raise refused(f"cannot delete {home.path / 'paused'}", error) from None
    scheduler.ensure(home)


def paused(home: Home) -> bool:
    """True if nothing new is to be started."""
    return (home.path / "paused").exists()


def _number(value: Any) -> TypeGuard[float]:
    """True for what can be compared; no bool, no NaN, nothing absurd."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST


def _position(run: RunDir, priority: int) -> float | None:
    """Where `run` stands among those of this priority; None if it has another one."""
    found = place(run)
    return _key(run, found)[1] if found.priority == priority else None


def _key(run: RunDir, found: Place) -> tuple[int, float, str]:
    return rank(found, run.json("run.json").get("created") if found.position is None else None, run.id)


def _between(before: float | None, after: float | None) -> float | None:
    """A position between two others (None: there is no other); None if no number is."""
    if before is None:
        return None if after is None else after - 1.0
    if after is None:
        # Behind all there are, and before all that will be made.
        return max(time.time(), math.nextafter(before, math.inf))
    middle = (before + after) / 2
    return middle if before < middle < after else None


def _spread(queue: Sequence[RunDir], priority: int, moved: RunDir) -> None:
    """Give those of `priority`, and `moved`, positions a second apart in the order of `queue`, up to the largest."""
    members = [run for run in queue if run.id == moved.id or place(run).priority == priority]
    last = max(_key(run, place(run))[1] for run in members)
    for back, run in enumerate(reversed(members)):
        _put(run, replace(place(run), priority=priority, position=last - back))


def check(runs: Sequence[RunDir]) -> None:
    """UsageError if one of `runs` is not queued."""
    for run in runs:
        status = run.status() if run.path.exists() else "gone"
        if status != "queued":
            raise UsageError(f"run {run.id} is {status}, not queued", "`trainctl queue` lists the queue")


def _put(run: RunDir, place: Place) -> None:
    try:
        write(run.path / FILE, _text(place))
    except OSError as error:
        raise refused(f"cannot write {run.path / FILE}", error) from None


def _text(place: Place) -> str:
    return json.dumps(asdict(place)) + "\n"
