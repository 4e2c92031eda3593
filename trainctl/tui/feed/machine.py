"""What waits, what works where, and how loaded the machine is; with what was seen in the last minutes."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from engine.rundir import AT_WORK, RunDir
from trainctl.cli.common import printable
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch import processes, queue, scheduler, slots
from trainctl.launch.machine import Machine, Meter, ProcessLoad
from trainctl.launch.queue import Place
from trainctl.launch.slots import Need
from trainctl.launch.waiting import UNSERVED, Held, Verdict, explain
from trainctl.registry import query
from trainctl.registry.progress import Progress
from trainctl.registry.query import RunRow

SPAN, STEP = 300.0, 2.0  # seconds that are remembered, and of one value of them
HOLDS = 5.0  # seconds for which a value stands if no newer one comes
SOONEST = 0.5  # seconds: a mean over less says nothing
QUEUE = 200  # runs of the queue that are looked at, the first ones
WHY = {"held": "the others pass it until h lets it go", "paused": "the queue is paused"}
USUAL = Place()

Values = tuple[float | None, ...]
"""A value each STEP of the last SPAN, the newest last; None where nobody looked."""


@dataclass(frozen=True)
class Working:
    """A run at work. `held` is what the scheduler counts for it; None if it works on another host, `host`."""

    run: RunRow
    held: Held | None
    host: str
    process: ProcessLoad | None
    progress: Progress


@dataclass(frozen=True)
class Waiting:
    """A run of the queue, its place there, and why it waits."""

    run: RunRow
    place: Place
    why: str


@dataclass(frozen=True)
class MachineView:
    """The screen of queue and machine: `queued` runs wait, of which `waiting` are the first, in their order.

    `resting` of them are held, and all of them wait while the queue is `paused`. `served` is by a scheduler.
    `recent` are values by name: "cpu" (cores at work), "memory" (bytes), "gpu N" (percent), "gpu N memory" (bytes).
    """

    machine: Machine
    recent: dict[str, Values]
    working: tuple[Working, ...]
    waiting: tuple[Waiting, ...]
    queued: int
    resting: int
    paused: bool
    served: bool
    gpus: tuple[str, ...]


@dataclass(frozen=True)
class SystemView:
    """One run's share of the machine. Without a process, `absent` says why; `recent` has "run …" for the run's own."""

    machine: Machine
    process: ProcessLoad | None
    absent: str
    recent: dict[str, Values]


class Recent:
    """Values of the last SPAN by name."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[float, float]]] = {}

    def add(self, now: float, name: str, value: float | None) -> None:
        """Remember a value, if there is one."""
        if value is not None:
            self._seen.setdefault(name, deque(maxlen=round(SPAN / SOONEST))).append((now, value))

    def forget(self, now: float) -> None:
        """Drop the names of which nothing was seen lately."""
        self._seen = {name: seen for name, seen in self._seen.items() if now - seen[-1][0] < SPAN}

    def values(self, now: float, name: str) -> Values:
        """What was seen up to `now`, on steps that stay where they are from look to look."""
        last = int(now / STEP)
        steps: list[float | None] = [None] * int(SPAN / STEP)
        for t, value in self._seen.get(name, ()):
            # A value fills the steps until the next one comes, which the loop then writes over.
            for step in range(int(t / STEP), int((t + HOLDS) / STEP) + 1):
                if last - len(steps) < step <= last:
                    steps[step - last - 1] = value
        return tuple(steps)


@dataclass
class Sampler:
    """Measures, and remembers what it measured as long as the dashboard is open. Threads may share it."""

    meter: Meter
    clock: Callable[[], float] = time.monotonic
    _recent: Recent = field(default_factory=Recent)
    _machine: tuple[float, Machine] | None = None
    _processes: dict[str, tuple[float, ProcessLoad | None]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def machine(self) -> Machine:
        """The machine now."""
        with self._lock:
            now = self.clock()
            if self._machine is None or now - self._machine[0] >= SOONEST:
                found = self.meter.machine()
                self._machine = now, found
                self._recent.forget(now)
                self._recent.add(now, "cpu", found.busy)
                self._recent.add(now, "memory", found.memory_used)
                for gpu in found.gpus.found:
                    self._recent.add(now, f"gpu {gpu.number}", gpu.load)
                    self._recent.add(now, f"gpu {gpu.number} memory", gpu.memory_used)
            return self._machine[1]

    def process(self, run: RunDir) -> ProcessLoad | None:
        """What the run takes now; None if no process of it lives here."""
        with self._lock:
            now = self.clock()
            before = self._processes.get(run.id)
            if before is None or now - before[0] >= SOONEST:
                found = self.meter.process(run)
                self._processes[run.id] = before = now, found
                if found:
                    self._recent.add(now, f"{run.id} cpu", found.cpu)
                    self._recent.add(now, f"{run.id} memory", found.memory)
                    self._recent.add(now, f"{run.id} gpu memory", found.gpu_memory)
            return before[1]

    def recent(self, *names: str) -> dict[str, Values]:
        """What was seen lately of each name."""
        with self._lock:
            return {name: self._recent.values(self.clock(), name) for name in names}

    def system(self, run: RunDir) -> SystemView:
        """The machine, and the run's share of it."""
        machine = self.machine()
        process = self.process(run) if run.status() in AT_WORK else None
        own = ("cpu", "memory", "gpu memory")
        recent = self.recent(*_names(machine), *(f"{run.id} {name}" for name in own))
        for name in own:
            recent[f"run {name}"] = recent.pop(f"{run.id} {name}")
        return SystemView(machine, process, "" if process else _absent(run), recent)


@cache
def sampler(home: Home) -> Sampler:
    """The one of a home, so that every screen draws the same minutes."""
    return Sampler(Meter(home))


class MachineFeed:
    """Answers of the screen of queue and machine. Used by one thread at a time."""

    def __init__(self, home: Home, look: Callable[[], object]) -> None:
        self.home = home
        self._look = look
        self._sampler = sampler(home)
        self._gpus: list[str] | None = None
        self._needs: dict[str, Need] = {}
        self._places: dict[str, tuple[tuple[int, int], Place]] = {}

    def view(self) -> MachineView:
        """Queue and machine now; `look` is called first, to bring the index up to date."""
        self._look()
        if self._gpus is None:
            self._gpus = slots.gpus()  # starts a process, so once
        machine = self._sampler.machine()
        rows = query.unfinished(self.home)
        working = self._working([row for row in rows if row.status in AT_WORK])
        line = self._line([row for row in rows if row.status == "queued"])
        paused = queue.paused(self.home)
        served = bool(rows) and scheduler.alive(self.home)
        held = [each.held for each in working if each.held]
        names = {row.id: printable(row.name) for row in rows}
        verdicts = zip(line[:QUEUE], self._verdicts(line[:QUEUE], held, paused), strict=True)
        waiting = tuple(
            Waiting(
                row, place, UNSERVED if found.gpu is not None and not served
                else WHY.get(found.lacks) or found.words(names, machine.cores),
            )
            for (row, place), found in verdicts
        )  # fmt: skip
        return MachineView(
            machine, self._sampler.recent(*_names(machine)), working, waiting, len(line),
            sum(place.held for _, place in line), paused, served, tuple(self._gpus),
        )  # fmt: skip

    def _working(self, live: Sequence[RunRow]) -> tuple[Working, ...]:
        progress = query.progress(self.home, [row.id for row in live])
        found = []
        for row in live:
            run = self.home.run(row.id)
            local = processes.is_local(run)
            process = self._sampler.process(run) if local else None
            found.append(
                Working(
                    row, scheduler.holding(run, self._gpus or []) if local else None, "" if local else _host(run),
                    process, progress.get(row.id) or Progress(),
                )
            )  # fmt: skip
        return tuple(found)

    def _line(self, queued: Sequence[RunRow]) -> list[tuple[RunRow, Place]]:
        """The queued runs with their places, in their order."""
        runs = str(self.home.runs)
        self._places = {row.id: found for row in queued if (found := self._place(runs, row.id))}
        placed = [(row, self._places[row.id][1] if row.id in self._places else USUAL) for row in queued]
        return sorted(placed, key=lambda each: queue.rank(each[1], each[0].created, each[0].id))

    def _place(self, runs: str, run: str) -> tuple[tuple[int, int], Place] | None:
        """The place of a run, read again only if its file was replaced; None if it has none."""
        try:
            found = os.stat(f"{runs}/{run}/{queue.FILE}")  # noqa: PTH116 - of thousands, each second
        except OSError:
            return None
        known, stamp = self._places.get(run), (found.st_mtime_ns, found.st_ino)
        return known if known and known[0] == stamp else (stamp, queue.place(self.home.run(run)))

    def _verdicts(self, line: Sequence[tuple[RunRow, Place]], held: Sequence[Held], paused: bool) -> list[Verdict]:
        # What a run needs is written down before it is queued, so it is read once.
        known, gpus = self._needs, self._gpus or []
        self._needs = {row.id: known.get(row.id) or slots.need(self.home.run(row.id), gpus) for row, _ in line}
        resting = {row.id for row, place in line if place.held}
        return explain(list(self._needs.items()), held, gpus, resting=resting, paused=paused)


def serve(home: Home) -> str:
    """Start a scheduler for the queue; what to say of it. UsageError if the queue is paused."""
    if queue.paused(home):
        raise UsageError("the queue is paused, so no scheduler would start anything", "p goes on")
    if scheduler.alive(home):
        return "a scheduler is at work already"
    scheduler.ensure(home)
    return "a scheduler was started; it leaves when nothing is queued or at work"


def _names(machine: Machine) -> list[str]:
    gpus = [gpu.number for gpu in machine.gpus.found]
    return ["cpu", "memory", *(f"gpu {number}{what}" for number in gpus for what in ("", " memory"))]


def _absent(run: RunDir) -> str:
    """Why no process of the run can be measured."""
    if not run.path.is_dir():
        return "Its folder has gone."
    status = run.status()
    if status == "queued":
        return "It waits in the queue: nothing of it runs yet. m among the runs says what it waits for."
    if status in AT_WORK:
        return f"It works on {_host(run)}; what it takes can be seen there only."
    peak = run.json("exit.json").get("peak_memory_mb")
    most = f" At most it took {peak / 1024:.2f} GiB." if isinstance(peak, (int, float)) else ""
    return f"It has ended ({status}), so nothing of it runs.{most}"


def _host(run: RunDir) -> str:
    return printable(str(run.process().get("host", "an unknown host")))
