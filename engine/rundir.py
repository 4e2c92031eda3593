"""The layout of a run folder, which is the truth about a run, and the status that follows from it.

    recipe.toml     resolved whole                          written by trainctl at launch
    timed/          recipes, of a run that only measures time        "
    run.json        id, name, recipe, group, pair, seed, command, created          "
    labels.json     tags and note                           replaced whole by trainctl
    launch.json     pid, start time, host of the started process     "  by the launcher
    env.json        versions, git commit and patch, host, device     written by the engine
    events.jsonl    append-only                                       "
    stdout.log      what the process printed
    heartbeat.json  pid, process start time, host, step, t            replaced whole by the engine
    exit.json       status, code, signal, reason, t                   by the engine, or by the launcher for a dead one
    attempts.jsonl  one line per start: t, pid, host, resumed_from    append-only
    attempts/       NNN-exit.json: how an attempt ended that was resumed;
                    NNN/: all that one left behind before it was begun anew
    checkpoints/    last.safetensors, best.safetensors: tensors, with JSON in the header;
                    last.safetensors.previous: the generation before
    eval/           CHECKPOINT-METRIC.csv (one row an example) and .json (settings and result); CHECKPOINT-tsne.json

Status is derived from these and from the process table, never stored as a flag that somebody must clear.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUSES = (
    "queued", "starting", "running", "stopping",
    "done", "failed", "diverged", "oom", "killed", "preempted", "timeout", "lost",
)  # fmt: skip
FINAL = frozenset(STATUSES[4:])
UNFINISHED = STATUSES[:4]
AT_WORK = STATUSES[1:4]
"""A process works in the folder, or is about to."""


def replace(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file, sync, rename over `path`, sync the folder: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def process_start_time(pid: int) -> float | None:
    """Start of process `pid` in unix seconds, or None if there is none; with the pid it names a process for good."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def _alive(process: dict[str, Any]) -> bool:
    """True if the process described by {pid, start_time, host} runs; one on another host is taken to run."""
    if process.get("host") != socket.gethostname():
        return True
    pid, start = process.get("pid"), process.get("start_time")
    if not isinstance(pid, int) or not isinstance(start, (int, float)):
        return False
    actual = process_start_time(pid)
    return actual is not None and abs(actual - start) < 1.0


def me() -> dict[str, Any]:
    """The calling process, as heartbeat.json and launch.json name it."""
    return {"pid": os.getpid(), "start_time": process_start_time(os.getpid()), "host": socket.gethostname()}


@dataclass(frozen=True)
class RunDir:
    """Paths of one run folder, and readers of its small JSON files."""

    path: Path

    @property
    def id(self) -> str:
        """The run's id, which is the folder's name."""
        return self.path.name

    @property
    def recipe(self) -> Path:
        """recipe.toml"""
        return self.path / "recipe.toml"

    @property
    def events(self) -> Path:
        """events.jsonl"""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """stdout.log"""
        return self.path / "stdout.log"

    @property
    def attempts(self) -> Path:
        """attempts.jsonl"""
        return self.path / "attempts.jsonl"

    @property
    def checkpoints(self) -> Path:
        """checkpoints/"""
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """eval/"""
        return self.path / "eval"

    @property
    def lock(self) -> Path:
        """Held (flock) by the engine that works in this folder, so that there is never a second one."""
        return self.path / "engine.lock"

    def json(self, name: str) -> dict[str, Any]:
        """Content of `name` (as "exit.json"); {} if it is missing, unreadable or no object."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replace `name` whole."""
        replace(self.path / name, json.dumps(value, indent=1) + "\n")

    def archive_exit(self) -> None:
        """Put exit.json away as attempts/NNN-exit.json, so that the run can go on and its history stays."""
        source = self.path / "exit.json"
        if not source.exists():
            return
        folder = self.path / "attempts"
        folder.mkdir(exist_ok=True)
        source.replace(folder / f"{self.next_attempt():03d}-exit.json")

    def next_attempt(self) -> int:
        """A number that nothing in attempts/ bears yet: neither NNN-exit.json nor the folder NNN."""
        names = (path.name.removesuffix("-exit.json") for path in (self.path / "attempts").glob("*"))
        return 1 + max((int(name) for name in names if name.isdecimal()), default=0)

    def checkpoint(self, which: str) -> Path:
        """checkpoints/WHICH.safetensors; `which` is "best" or "last"."""
        return self.checkpoints / f"{which}.safetensors"

    def status(self) -> str:
        """One of STATUSES, from exit.json, heartbeat.json, launch.json and the process table."""
        ended = self.json("exit.json").get("status")
        if ended in FINAL:
            return str(ended)
        beat = self.json("heartbeat.json")
        launch = self.json("launch.json")
        if not beat and not launch:
            return "queued"
        if not _alive(beat or launch):
            return "lost"
        if launch.get("stop_requested"):
            return "stopping"
        return "running" if beat else "starting"
