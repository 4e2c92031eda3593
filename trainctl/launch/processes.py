"""Engine processes: started so that they outlive whoever started them, and stopped so that nothing is lost.

Nobody works in a run folder without holding the lock (flock) on its stdout.log. An engine inherits it with its
output, so that it is held exactly as long as the engine or a child of it lives, even if the starter was killed
before it could write down the pid. That is what keeps a run from being started twice.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.rundir import FINAL, RunDir, process_start_time
from trainctl.errors import MachineError, TrainctlError, UsageError

ENGINE = (sys.executable, "-P", "-m", "engine")
GRACE = 60.0  # seconds that a stopped engine has for its checkpoint
POLL = 0.05


class Busy(UsageError):
    """Somebody else works in this run folder."""


@contextmanager
def claim(run: RunDir, patience: float = 0.0) -> Iterator[int]:
    """Hold the run's lock; gives the descriptor of stdout.log, opened for appending.

    Raises Busy if somebody else holds it for longer than `patience` seconds.
    """
    try:
        log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    except FileNotFoundError:
        raise UsageError(f"run {run.id} has gone") from None
    except OSError as error:
        raise MachineError(f"cannot write {run.log}: {error.strerror}") from None
    if not _locked(log, patience):
        os.close(log)
        raise Busy(f"a process works in run {run.id}", f"stop it with `trainctl stop {run.id}`, or wait for it")
    try:
        yield log
    finally:
        os.close(log)


def _locked(descriptor: int, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL)
        else:
            return True


def spawn(
    run: RunDir,
    log: int,
    *,
    engine: Sequence[str] | None = None,
    arguments: Sequence[str] = (),
    environment: dict[str, str],
) -> subprocess.Popen[bytes]:
    """Start `engine RUN_FOLDER *arguments` in a session of its own, with its output appended to the file behind `log`.

    `engine` None is `ENGINE`. It works where the user typed the command, for the sake of relative paths in the recipe.
    """
    cwd = run.json("run.json").get("cwd")
    program = engine or ENGINE
    try:
        return subprocess.Popen(
            [*program, str(run.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=cwd if isinstance(cwd, str) and Path(cwd).is_dir() else run.path,
            env={**os.environ, **import_path(), "PYTHONUNBUFFERED": "1", **environment},
        )
    except OSError as error:
        raise MachineError(f"cannot start {program[0]}: {error.strerror}") from None


def start(
    run: RunDir, *, threads: int = 0, gpu: str = "", device: str = "", engine: Sequence[str] | None = None
) -> subprocess.Popen[bytes] | None:
    """Start the engine of a queued run; None if the run is no longer queued. Raises Busy if somebody works in it.

    `threads` 0 leaves their number to the libraries. `gpu` is what the engine may see of the GPUs ("": all); `device`
    is written to launch.json for people and for the scheduler after this one.
    """
    with claim(run) as log:
        if run.status() != "queued":
            return None
        environment = thread_limits(threads)
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        child = spawn(run, log, engine=engine, environment=environment)
        who = {"pid": child.pid, "start_time": process_start_time(child.pid), "host": socket.gethostname()}
        try:
            run.write_json("launch.json", {**who, "t": time.time(), "device": device})
        except OSError:
            child.kill()
            child.wait()
            raise
        return child


def thread_limits(threads: int) -> dict[str, str]:
    """The environment that keeps numerical libraries to `threads` threads; {} for 0."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return dict.fromkeys(names, str(threads)) if threads else {}


def import_path() -> dict[str, str]:
    """What PYTHONPATH must be for `-m engine` and `-m trainctl` to find these packages; {} where they are installed."""
    root = Path(__file__).parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return {}
    return {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])}


def record_end(run: RunDir, status: str, *, code: int = 0, number: int = 0, reason: str) -> None:
    """Write exit.json for an engine that left none. `number` is the signal that ended it, 0 for none."""
    if run.json("exit.json").get("status") not in FINAL:
        name = signal.Signals(number).name if number else None
        ended = {"status": status, "code": 128 + number if number else code, "signal": name, "reason": reason}
        run.write_json("exit.json", {**ended, "t": time.time()})


def request_stop(run: RunDir) -> None:
    """Ask a run to stop and do not wait: a queued one is cancelled, a working one writes a checkpoint (SIGTERM)."""
    try:
        with claim(run):
            if run.status() == "queued":
                record_end(run, "killed", reason="cancelled before it started")
            if run.status() in FINAL:
                return
        # At work all the same: an engine that was started by hand, or on another host, holds no lock of ours.
    except Busy:
        pass
    deadline = time.monotonic() + 5.0
    while True:
        if run.json("exit.json").get("status") in FINAL:
            return
        if (process := _process(run)) or time.monotonic() > deadline:
            break
        time.sleep(POLL)  # it was started this moment and its pid is about to be written
    if process.get("host") != socket.gethostname():
        raise MachineError(f"run {run.id} works on {process.get('host', 'an unknown host')}", "stop it there")
    launch = run.json("launch.json") or process
    run.write_json("launch.json", {**launch, "stop_requested": time.time()})
    _signal(process, signal.SIGTERM)


def kill(run: RunDir) -> None:
    """End a run's processes at once (SIGKILL to all of them) and write exit.json if the engine has not."""
    process = _process(run)
    if process and process.get("host") == socket.gethostname():
        _signal(process, signal.SIGKILL)
        deadline = time.monotonic() + 10.0
        while is_alive(process) and time.monotonic() < deadline:
            time.sleep(POLL)
    if run.status() not in FINAL or run.status() == "lost":
        record_end(run, "killed", number=signal.SIGKILL, reason="did not stop in time and was killed")


def stop(runs: Sequence[RunDir], grace: float = GRACE) -> None:
    """Stop runs together: ask all, wait up to `grace` seconds, kill those left; then raise the first error met."""
    errors: list[TrainctlError] = []
    asked: list[RunDir] = []
    for run in runs:
        try:
            request_stop(run)
            asked.append(run)
        except TrainctlError as error:
            errors.append(error)
    deadline = time.monotonic() + grace
    while any(_works(run) for run in asked) and time.monotonic() < deadline:
        time.sleep(POLL)
    for run in asked:
        if _works(run):
            kill(run)
        elif run.status() == "lost":
            record_end(run, "killed", number=signal.SIGTERM, reason="stopped before it could write a checkpoint")
    if errors:
        raise errors[0]


def is_alive(process: dict[str, Any]) -> bool:
    """True if the process {pid, start_time} of this host runs; another one with the same pid does not count."""
    pid, started = process.get("pid"), process.get("start_time")
    if not isinstance(pid, int) or not isinstance(started, (int, float)):
        return False
    actual = process_start_time(pid)
    return actual is not None and abs(actual - started) < 1.0


def _process(run: RunDir) -> dict[str, Any]:
    """The engine's process as it or its starter wrote it down; {} if neither has."""
    return run.json("heartbeat.json") or run.json("launch.json")


def is_local(run: RunDir) -> bool:
    """True if the run's engine was started on this host."""
    return bool(_process(run).get("host") == socket.gethostname())


def _works(run: RunDir) -> bool:
    return is_local(run) and is_alive(_process(run))


def _signal(process: dict[str, Any], number: signal.Signals) -> None:
    """Signal the whole session of the engine, or the engine alone if it was started by hand in somebody's session."""
    if not is_alive(process):
        return
    pid = int(process["pid"])
    try:
        if os.getpgid(pid) == pid:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        raise MachineError(f"process {pid} belongs to somebody else", "ask its owner to stop it") from None
