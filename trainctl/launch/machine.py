"""What this machine has and how loaded it is, and what the processes of a run take of it."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from engine.rundir import RunDir, alive
from trainctl.home import Home
from trainctl.launch import slots
from trainctl.launch.gpus import Gpus, Nvml


@dataclass(frozen=True)
class Machine:
    """A look at this machine. `busy` counts cores, of those that we may use; None at the first look. Sizes are bytes.

    `load` are the mean numbers of processes that wanted to run in the last 1, 5 and 15 minutes.
    """

    host: str
    cores: int
    busy: float | None
    load: tuple[float, float, float]
    memory_used: int
    memory_total: int
    swap_used: int
    swap_total: int
    disk_free: int
    disk_total: int
    gpus: Gpus


@dataclass(frozen=True)
class ProcessLoad:
    """What a run's process and all that it started take: `cpu` in percent of one core, None at the first look.

    `memory` is resident bytes; what the processes share is counted in each.
    """

    pid: int
    started: float
    cpu: float | None
    memory: int
    threads: int
    processes: int
    gpu_memory: int | None


class Meter:
    """Looks again and again; loads are means since the look before. Used by one thread at a time."""

    def __init__(self, home: Home, nvml: Nvml | None = None) -> None:
        self.home = home
        self._nvml = nvml or Nvml()
        self._gpus = Gpus()
        self._cores: tuple[float, float] | None = None
        self._trees: dict[str, tuple[float, dict[tuple[int, float], float]]] = {}

    def machine(self) -> Machine:
        """The machine as a whole."""
        import psutil

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        disk = _disk(self.home.path)
        self._gpus = self._nvml.look()
        return Machine(
            socket.gethostname(), slots.cores(), self._busy(), os.getloadavg(), memory.total - memory.available,
            memory.total, swap.used, swap.total, disk[0], disk[1], self._gpus,
        )  # fmt: skip

    def process(self, run: RunDir) -> ProcessLoad | None:
        """What the run takes; None if no process of it lives on this host. GPU memory is as `machine` saw it last."""
        written = run.process()
        if not alive(written):
            self._trees.pop(run.id, None)
            return None
        found = [share for pid in _tree(int(written["pid"])) if (share := _share(pid))]
        times = {share.process: share.seconds for share in found}
        now, before = time.monotonic(), self._trees.get(run.id)
        self._trees[run.id] = (now, times)
        return ProcessLoad(
            int(written["pid"]), float(written["start_time"]), _percent(before, now, times),
            sum(share.memory for share in found), sum(share.threads for share in found), len(found),
            self._gpus.memory_of(frozenset(pid for pid, _ in times)),
        )  # fmt: skip

    def _busy(self) -> float | None:
        """Cores at work since the look before."""
        import psutil

        allowed = os.sched_getaffinity(0)
        every = [core for number, core in enumerate(psutil.cpu_times(percpu=True)) if number in allowed]
        idle = sum(core.idle + getattr(core, "iowait", 0.0) for core in every)
        now, before = time.monotonic(), self._cores
        self._cores = (now, idle)
        if before is None or now <= before[0]:
            return None
        return min(float(len(every)), max(0.0, len(every) - (idle - before[1]) / (now - before[0])))


def _percent(
    before: tuple[float, dict[tuple[int, float], float]] | None, now: float, times: dict[tuple[int, float], float]
) -> float | None:
    """CPU of the processes since the look `before`; one that is new since has worked since then only."""
    if before is None or now <= before[0]:
        return None
    worked = sum(seconds - before[1].get(process, 0.0) for process, seconds in times.items())
    return 100 * max(0.0, worked) / (now - before[0])


def _disk(path: Path) -> tuple[int, int]:
    """Free and total bytes of the file system under `path`; zeros if it cannot be asked."""
    try:
        disk = shutil.disk_usage(path)
    except OSError:
        return 0, 0
    return disk.free, disk.total


@dataclass(frozen=True)
class _Share:
    """What one process takes: CPU seconds since its start, resident bytes, threads."""

    process: tuple[int, float]
    seconds: float
    memory: int
    threads: int


def _share(pid: int) -> _Share | None:
    """What process `pid` takes; None if it has gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            used = process.cpu_times()
            about = (pid, process.create_time())
            return _Share(about, used.user + used.system, process.memory_info().rss, process.num_threads())
    except psutil.Error:
        return None


def _tree(pid: int) -> Iterator[int]:
    """A process and its descendants.

    The kernel is asked for the children of each, because to look for them among all processes costs too much for a
    question of every second.
    """
    waiting = [pid]
    while waiting:
        yield (each := waiting.pop())
        with suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                with suppress(OSError):
                    waiting += map(int, (task / "children").read_text().split())
