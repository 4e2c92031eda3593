"""The layout of a run folder, which is the truth about a run, and the status that follows from it.

    recipe.toml     resolved whole                          written by trainctl at launch
    timed/          recipes, of a run that only measures time        "
    run.json        id, name, recipe, group, pair, seed, command, created          "
    labels.json     tags and note                           replaced whole by trainctl
    launch.json     the started process (see `process`), its folder, when         "  by the launcher
    env.json        versions, git commit and patch, host, device     written by the engine
    events.jsonl    append-only                                       "
    stdout.log      what the process printed
    heartbeat.json  the process, its folder, step, t       replaced whole by the engine, every few seconds
    exit.json       status, code, signal, reason, hint, t             by the engine, or by the launcher for a dead one
    attempts.jsonl  one line per start: t, the process, resumed_from  append-only
    attempts/       NNN-exit.json: how an attempt ended that was resumed;
                    NNN/: all that one left behind before it was begun anew
    checkpoints/    last.safetensors, best.safetensors: tensors, with JSON in the header;
                    last.safetensors.previous: the generation before
    eval/           CHECKPOINT-METRIC.csv (one row an example) and .json (settings and result); CHECKPOINT-tsne.json
    .reserve        room on the disk that is given back to write exit.json: taken by the launcher, so that it is
                    there while the engine still starts, and kept by the engine; left behind by a killed one

Status is derived from these and from the process table, never stored as a flag that somebody must clear.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import stat
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

STATUSES = (
    "queued", "starting", "running", "stopping",
    "done", "failed", "diverged", "oom", "killed", "preempted", "timeout", "lost",
)  # fmt: skip
FINAL = frozenset(STATUSES[4:])
UNFINISHED = STATUSES[:4]
AT_WORK = STATUSES[1:4]
"""A process works in the folder, or is about to."""

STALE = 15 * 60.0
"""Seconds without a heartbeat after which a run of another host is lost."""
_SURELY_FRESH = 60.0
LARGEST = 1 << 20
"""Bytes that a JSON file or a recipe in a run folder can have."""
RESERVE = 32 * 1024
"""Bytes kept for the end event, exit.json and the last lines of stdout.log."""
STOP_SIGNALS: dict[int, str] = {
    signal.SIGTERM: "killed",
    signal.SIGINT: "killed",
    signal.SIGHUP: "killed",
    signal.SIGUSR1: "preempted",
    signal.SIGUSR2: "timeout",
    signal.SIGXCPU: "timeout",
}
"""Signals that ask a run to checkpoint and go, and the status that each leads to. Batch systems send the last three:
before they take the machine away, before the time limit, and when the CPU time is used up.
"""


def replace(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary file, sync, rename over `path`, sync the folder: whole or not at all.

    An OSError names `path`, whatever step failed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = content.encode() if isinstance(content, str) else content
    try:
        with create(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error  # it named the temporary file, or both
        raise


def create(path: Path) -> BinaryIO:
    """A new file, open for writing, in the place of what bore its name: nothing is written through a link."""
    path.unlink(missing_ok=True)
    return open(path, "xb")  # O_EXCL, which follows no link that somebody makes meanwhile


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def process_start_time(pid: int) -> float | None:
    """Start of process `pid` in unix seconds, or None if there is none. It moves when somebody sets the clock."""
    import psutil

    try:
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else float(found.create_time())
    except psutil.Error:
        return None


def process(pid: int) -> dict[str, Any]:
    """Process `pid` of this host, as heartbeat.json and launch.json name it.

    What names it for good is the pid, `ticks` (its start in clock ticks since boot) and `boot` (the id of the boot);
    both are None where there is no /proc. start_time (unix seconds) is for people, and names it there.
    """
    return {
        "pid": pid, "start_time": process_start_time(pid), "ticks": _ticks(pid), "boot": _boot(),
        "host": socket.gethostname(),
    }  # fmt: skip


def me() -> dict[str, Any]:
    """The calling process, as heartbeat.json and launch.json name it."""
    return process(os.getpid())


def is_here(process: dict[str, Any]) -> bool:
    """True if the process was started on this host, or does not say where."""
    return bool(process.get("host", here := socket.gethostname()) == here)


def alive(process: dict[str, Any]) -> bool:
    """True if the process that `process` once described runs on this host.

    False for one of another host or an earlier boot, a zombie, another process that has the pid by now, and for
    whatever describes no process. One that was described without `ticks` is told by its start_time, within a second.
    """
    pid, boot, ticks, start = (process.get(key) for key in ("pid", "boot", "ticks", "start_time"))
    if not is_here(process) or not isinstance(pid, int) or not 0 < pid < 2**31:
        return False
    if _boot() and isinstance(boot, str):
        if boot != _boot():
            return False
        if isinstance(ticks, int):
            return _ticks(pid) == ticks
    if not isinstance(start, (int, float)):
        return False
    actual = process_start_time(pid)
    return actual is not None and actual - 1.0 < start < actual + 1.0


@cache
def _boot() -> str | None:
    """The id of this boot (random(4)); None where the kernel gives none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def _ticks(pid: int) -> int | None:
    """Start of the living process `pid` in clock ticks since boot, which no clock moves (field 22 of
    proc_pid_stat(5)); None if there is none, it is a zombie, or there is no /proc.
    """
    try:
        # The second field is the program's name in brackets, and may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if fields[0] in (b"Z", b"X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return None


def regular(path: str | Path, flags: int) -> int:
    """An opener for `open` that raises an OSError if the file is no regular one: a pipe would block, a device never
    end.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return descriptor


def is_locked(path: Path) -> bool:
    """True if somebody holds the lock (flock) on a file, or if that cannot be told."""
    try:
        descriptor = regular(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        return error.errno != errno.ENOENT
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def content(path: str | Path) -> bytes:
    """Bytes of a regular file of at most `LARGEST`; OSError if it is none."""
    descriptor = regular(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if size > LARGEST:
            raise OSError(errno.EINVAL, "no small file", str(path))
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def toml(path: Path) -> dict[str, Any]:
    """Content of a recipe in a run folder. Raises OSError if it cannot be read, ValueError if it is no TOML."""
    import tomli

    try:
        return tomli.loads(content(path).decode())
    except RecursionError:
        raise ValueError("too deeply nested") from None


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
            value = json.loads(content(f"{self.path}/{name}"))
        except (OSError, ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        """Replace `name` whole."""
        replace(self.path / name, json.dumps(value, indent=1) + "\n")

    def table(self) -> dict[str, Any]:
        """Content of recipe.toml, unchecked; errors as of `toml`."""
        return toml(self.recipe)

    def keep_reserve(self) -> int:
        """Descriptor of .reserve, which takes RESERVE bytes on the disk; OSError if they cannot be had.

        One that is there is kept: on a disk that is full by now there would be no other.
        """
        path = self.path / ".reserve"
        with contextlib.suppress(OSError):
            kept = regular(path, os.O_RDONLY | os.O_NOFOLLOW)
            if os.fstat(kept).st_size >= RESERVE:
                return kept
            os.close(kept)
        with create(path) as file:
            file.write(os.urandom(RESERVE))  # zeros would take no room on a disk that compresses
            file.flush()
            return os.dup(file.fileno())

    def free_reserve(self) -> None:
        """Give the room of .reserve back; how the run ended is about to be written."""
        with contextlib.suppress(OSError):
            (self.path / ".reserve").unlink(missing_ok=True)

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
        """One of STATUSES, from exit.json, heartbeat.json, launch.json, and the process table of this host.

        A run of another host is lost once it has left no heartbeat for STALE seconds.
        """
        if ended := self._ended():
            return ended
        beat = self.json("heartbeat.json")
        launch = self.json("launch.json")
        if not beat and not launch:
            return "queued"
        who = self._of_here(beat or launch)
        if not (alive(who) if is_here(who) else self._is_fresh("heartbeat.json" if beat else "launch.json")):
            return self._ended() or "lost"  # it may have ended since
        if launch.get("stop_requested"):
            return "stopping"
        return "running" if beat else "starting"

    def process(self) -> dict[str, Any]:
        """The process that was started here last, as it or who started it wrote it down; {} if neither has.

        It is dead (no pid) here if it works in another folder, of which this one is a copy.
        """
        return self._of_here(self.json("heartbeat.json") or self.json("launch.json"))

    def _of_here(self, process: dict[str, Any]) -> dict[str, Any]:
        folder = process.get("folder")
        if not isinstance(folder, str) or folder == str(self.path) or not is_here(process):
            return process
        with contextlib.suppress(OSError, ValueError):
            if self.path.samefile(folder):  # by way of a link
                return process
        # Moved or copied: the engine's lock goes with a folder that is moved, and stays with the one that is copied.
        # The lock on stdout.log tells nothing: whoever asks may hold it.
        return process if is_locked(self.lock) else {**process, "pid": None}

    def _ended(self) -> str:
        """The status that exit.json tells; "" if it tells none."""
        ended = self.json("exit.json").get("status")
        return ended if isinstance(ended, str) and ended in FINAL else ""

    def _is_fresh(self, name: str) -> bool:
        """True unless `name` was last replaced more than STALE seconds ago, by the clock of the file system.

        Clocks of hosts differ, and are set. So unless the file is as young as that of a run at work must be, the file
        system is asked for its time; if it does not answer (nothing can be written here), the run is taken to run.
        """
        try:
            written = (self.path / name).stat().st_mtime
            if abs(time.time() - written) < _SURELY_FRESH:
                return True
            import tempfile

            with tempfile.TemporaryFile(dir=self.path) as probe:
                return os.fstat(probe.fileno()).st_mtime - written < STALE
        except OSError:
            return True
