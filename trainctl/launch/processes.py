"""Engine processes: started so that they outlive whoever started them, and stopped so that nothing is lost.

Nobody works in a run folder without holding the lock (flock) on its stdout.log. An engine inherits it with its
output, so that it is held exactly as long as the engine or a child of it lives, even if the starter was killed
before it could write down the pid. That is what keeps a run from being started twice.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine import rundir
from engine.rundir import FINAL, RunDir, alive
from trainctl.errors import MachineError, TrainctlError, UsageError, refused
from trainctl.home import Home
from trainctl.launch import frozen, signals

MODULE = ("-P", "-m", "engine")
ENGINE = (sys.executable, *MODULE)
GRACE = 60.0  # seconds that a stopped engine has for its checkpoint
POLL = 0.05
WORDS = {"PYTHONIOENCODING": "utf-8:backslashreplace"}
"""Environment of what prints into a file: that outlives the terminal, and no letter that this one lacks is refused."""
# What is written in a run folder where it stands; all else is replaced whole, which cuts a link.
WRITTEN = ("events.jsonl", "attempts.jsonl", "engine.lock", "attempts", "checkpoints", "eval")


class Busy(UsageError):
    """Somebody else works in this run folder."""


@contextmanager
def claim(run: RunDir, patience: float = 0.0) -> Iterator[int]:
    """Hold the run's lock; gives the descriptor of stdout.log, opened for appending.

    Raises Busy if somebody else holds it for longer than `patience` seconds.
    """
    for path in (run.path, run.log):
        if path.is_symlink() or path.is_fifo():
            raise _led_out(run, path)
    try:
        log = os.open(run.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except FileNotFoundError:
        raise UsageError(f"run {run.id} has gone") from None
    except OSError as error:
        raise refused(f"cannot write {run.log}", error) from None
    if not _locked(log, patience):
        os.close(log)
        raise Busy(f"a process works in run {run.id}", f"stop it with `trainctl stop {run.id}`, or wait for it")
    try:
        yield log
    finally:
        os.close(log)


def contained(run: RunDir) -> None:
    """UsageError if something in the run's folder that is written would lead out of it: a stranger may have made it."""
    for path in (run.path, *(run.path / name for name in WRITTEN)):
        if path.is_symlink() or path.is_fifo():
            raise _led_out(run, path)


def _led_out(run: RunDir, path: Path) -> UsageError:
    hint = f"put in its place what it leads to, if you trust it, or delete the run: trainctl rm {run.id}"
    return UsageError(f"{path} is a link or no ordinary file, and nothing is written through it", hint)


@contextmanager
def writing(run: RunDir) -> Iterator[None]:
    """What is done inside writes in the run's folder; an OSError becomes a MachineError with the path and a remedy."""
    try:
        yield
    except OSError as error:
        raise refused(f"cannot write {error.filename or run.path}", error) from None


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
    code: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start `engine RUN_FOLDER *arguments` in a session of its own, with its output appended to the file behind `log`.

    `engine` None is `ENGINE`. `code` is the frozen copy that it runs, None for today's. It works where the user typed
    the command, for the sake of relative paths in the recipe.
    """
    program = engine or ENGINE
    try:
        return subprocess.Popen(
            [*program, str(run.path), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=_cwd(run),
            env={
                **os.environ,
                **(frozen.environment(code) if code else import_path()),
                "PYTHONUNBUFFERED": "1",
                **WORDS,
                **environment,
            },
        )
    except OSError as error:
        raise refused(f"cannot start {program[0]}", error) from None


def _cwd(run: RunDir) -> str | Path:
    """Where the user typed the command if one may work there, else the run's folder."""
    cwd = run.json("run.json").get("cwd")
    with suppress(OSError, ValueError):
        if isinstance(cwd, str) and cwd.startswith("/") and stat.S_ISDIR(os.stat(cwd).st_mode):  # noqa: PTH116
            return cwd if os.access(cwd, os.X_OK) else run.path
    return run.path


def start(
    run: RunDir, *, threads: int = 0, gpu: str = "", device: str = "", engine: Sequence[str] | None = None
) -> subprocess.Popen[bytes] | None:
    """Start the engine of a queued run; None if the run is no longer queued. Raises Busy if somebody works in it,
    MachineError if it cannot be started or its frozen code has gone.

    `threads` 0 leaves their number to the libraries. `gpu` is what the engine may see of the GPUs ("": all); `device`
    is written to launch.json for people and for the scheduler after this one.
    """
    with claim(run) as log:
        if run.status() != "queued":
            return None
        contained(run)
        name = run.json("run.json").get("code")
        ours = tuple(engine or ENGINE)[1:] == MODULE
        code = frozen.find(Home(run.path.parents[1]), name) if ours and name is not None else None
        environment = thread_limits(threads)
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with suppress(OSError):  # a disk without room for it may have room for the run
            os.close(run.keep_reserve())
        child = spawn(run, log, engine=engine, environment=environment, code=code)
        try:
            with writing(run):
                about = {"folder": str(run.path), "t": time.time(), "device": device}
                run.write_json("launch.json", {**rundir.process(child.pid), **about})
        except TrainctlError:
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


def record_end(run: RunDir, status: str, *, code: int = 0, number: int = 0, reason: str, hint: str = "") -> None:
    """Write exit.json for an engine that left none. `number` is the signal that ended it, 0 for none.

    Nothing is written into a folder elsewhere that a link leads to.
    """
    if not run.path.is_symlink() and run.json("exit.json").get("status") not in FINAL:
        name = next((each.name for each in signal.Signals if each == number), None)  # not all have one
        ended = {"status": status, "code": 128 + number if number else code, "signal": name, "reason": reason}
        run.free_reserve()
        run.write_json("exit.json", {**ended, "hint": hint, "t": time.time()})


def request_stop(run: RunDir) -> dict[str, Any]:
    """Ask a run to stop and do not wait: a queued one is cancelled, a working one writes a checkpoint (SIGTERM).

    Returns the process that was asked; {} if there was none.
    """
    try:
        with claim(run), writing(run):
            if run.status() == "queued":
                record_end(run, "killed", reason="cancelled before it started")
            if run.status() in FINAL:
                return {}
        # At work all the same: an engine that was started by hand, or on another host, holds no lock of ours.
    except Busy:
        pass
    deadline = time.monotonic() + 5.0
    while True:
        if run.json("exit.json").get("status") in FINAL:
            return {}
        if (process := run.process()) or time.monotonic() > deadline:
            break
        time.sleep(POLL)  # it was started this moment and its pid is about to be written
    if not process:
        raise Busy(f"run {run.id} is being changed by another process", "try again")
    if not is_local(run):
        raise MachineError(f"run {run.id} works on {process['host']}", "stop it there")
    launch = run.json("launch.json") or process
    with suppress(OSError):  # a full disk must not keep a run from being stopped
        run.write_json("launch.json", {**launch, "stop_requested": time.time()})
    signals.send(process, signal.SIGTERM)
    return process


def kill(run: RunDir) -> int:
    """End all processes of a run at once (SIGKILL) and write exit.json if the engine has not; how many there were.

    Those are the engine's, what descends from it, and all of its session, whatever group they put themselves in.
    """
    process = run.process()
    count = signals.kill(process) if alive(process) else _kill_leftovers(run)
    if run.status() not in FINAL or run.status() == "lost":
        with writing(run):
            record_end(run, "killed", number=signal.SIGKILL, reason="did not stop in time and was killed")
    return count


def stop(runs: Sequence[RunDir], grace: float = GRACE, *, say: Callable[[RunDir, str], None] | None = None) -> None:
    """Stop runs together: ask all, wait up to `grace` seconds, kill those left; then raise the first error met.

    `say` is told each stage of each run when it is reached, the last one being how it ended.
    """
    errors: list[TrainctlError] = []
    asked: list[_Stopping] = []
    for run in runs:
        stopping = _Stopping(run, say or (lambda run, stage: None))
        try:
            stopping.ask(grace)
            asked.append(stopping)
        except TrainctlError as error:
            errors.append(error)
    deadline = time.monotonic() + grace
    while asked:
        late = time.monotonic() >= deadline
        for stopping in list(asked):
            try:
                if stopping.ended(late, grace):
                    asked.remove(stopping)
            except TrainctlError as error:
                asked.remove(stopping)
                errors.append(error)
        time.sleep(POLL if asked else 0)
    if errors:
        raise errors[0]


class _Stopping:
    """A run on its way out, and what was said of it."""

    def __init__(self, run: RunDir, say: Callable[[RunDir, str], None]) -> None:
        self.run = run
        self._say = say
        self._before = self._generation()
        self._asked: dict[str, Any] = {}  # somebody may resume the run before this is looked at again
        self._writes = self._wrote = False

    def ask(self, grace: float) -> None:
        self._asked = request_stop(self.run)
        if alive(self._asked):
            self._say(self.run, f"asked to stop (SIGTERM); it has {grace:g} s for its checkpoint")

    def ended(self, late: bool, grace: float) -> bool:
        """True once it has ended; if it is too `late` for that it is killed."""
        works = alive(self._asked)
        self._look()
        if works:
            if not late:
                return False
            count = kill(self.run)
            self._say(self.run, f"killed after {grace:g} s: {count} process{'' if count == 1 else 'es'}")
        elif self.run.status() == "lost":
            with writing(self.run):
                reason = "stopped before it could write a checkpoint"
                record_end(self.run, "killed", number=signal.SIGTERM, reason=reason)
        if count := _kill_leftovers(self.run):
            self._say(self.run, f"killed what it left behind: {count} process{'' if count == 1 else 'es'}")
        if not self.run.path.exists():
            self._say(self.run, "has gone: somebody deleted it")
            return True
        why = self.run.json("exit.json").get("reason")
        self._say(self.run, f"{self.run.status()}{f': {why}' if why else ''}")
        return True

    def _look(self) -> None:
        if not self._writes and any(self.run.checkpoints.glob(".last.*.tmp")):
            self._writes = True
            self._say(self.run, "is writing its checkpoint")
        if not self._wrote and self._generation() != self._before:
            self._writes = self._wrote = True
            self._say(self.run, "has written its checkpoint")

    def _generation(self) -> tuple[int, int]:
        """Which file checkpoints/last is."""
        try:
            found = self.run.checkpoint("last").stat()
        except OSError:
            return 0, 0
        return found.st_ino, found.st_mtime_ns


def is_local(run: RunDir) -> bool:
    """True if the run's engine was started on this host."""
    process = run.process()
    return bool(process) and rundir.is_here(process)


def _kill_leftovers(run: RunDir) -> int:
    """End what an engine that has ended left behind in its session, if it still works in the run's folder; how many."""
    pid = run.process().get("pid")
    try:
        with claim(run):
            return 0
    except Busy:  # a child inherited the lock, or somebody evaluates the run again
        pass
    except TrainctlError:
        return 0
    if not is_local(run) or not isinstance(pid, int) or rundir.process_start_time(pid) is not None:
        return 0
    return signals.kill_session(pid)
