"""The engines and schedulers of a home, found among the processes of this user by their command lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from trainctl.home import Home

PROCESSES = Path("/proc")
SCHEDULER = "trainctl.launch.scheduler"


@dataclass(frozen=True)
class Worker:
    """A process: an engine in the folder of `run`, or a scheduler (`run` is ""). `trains`: it does not only evaluate.

    `started` is unix seconds; `stopped`: it stands still (state T), as after Ctrl-Z.
    """

    pid: int
    started: float
    stopped: bool
    run: str
    trains: bool


def workers(home: Home) -> list[Worker]:
    """All of them, the oldest first. In a container of its own, the same path is another home."""
    runs, place = os.path.realpath(home.runs), os.path.realpath(home.path)
    found: list[Worker] = []
    for pid, arguments in _command_lines():
        for word, following in pairwise(arguments):
            if word == "-m" and following in ("engine", SCHEDULER):
                rest = arguments[arguments.index(following) + 1 :]
                found += _worker(pid, following, rest, runs, place)
                break
    return sorted(found, key=lambda worker: worker.started)


def _worker(pid: int, module: str, rest: list[str], runs: str, home: str) -> Iterator[Worker]:
    import psutil

    if not rest:
        return
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        given = rest[0] if rest[0].startswith("/") else f"{process.cwd()}/{rest[0]}"
        parent, name = os.path.split(given.rstrip("/"))
        is_engine = module == "engine" and os.path.realpath(parent) == runs
        if is_engine or (module == SCHEDULER and os.path.realpath(given) == home):
            stopped = process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
            trains = is_engine and len(rest) == 1
            yield Worker(pid, process.create_time(), stopped, name if is_engine else "", trains)


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    """Pid and arguments of every process of this user that runs a module; this one is left out."""
    mine, mounts = os.getuid(), _mounts("self")
    for entry in os.scandir(PROCESSES):
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):  # it has gone
            if entry.stat().st_uid == mine:
                line = Path(entry.path, "cmdline").read_bytes()
                if b"\0-m\0" in line and _mounts(entry.name) == mounts:
                    yield int(entry.name), os.fsdecode(line).split("\0")[:-1]


def _mounts(pid: str) -> str:
    """The name space in which a process sees files."""
    return str((PROCESSES / pid / "ns" / "mnt").readlink())
