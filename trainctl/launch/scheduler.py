"""The local queue: one process per home that starts queued runs as cores or GPUs come free, first come first served.

    python -m trainctl.launch.scheduler HOME

It keeps no list: the queue is the folders whose status is `queued`. It is elected by a lock, so there is never
a second one; it may be killed at any time, since engines outlive it and the next one counts them in; and it leaves
when nothing is queued or at work.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.rundir import FINAL, RunDir
from trainctl.errors import MACHINE, MachineError, TrainctlError
from trainctl.home import Home
from trainctl.launch import processes, slots
from trainctl.launch.waiting import Held, judge, kind

TICK = 0.1  # seconds between two looks at the children
RESCAN = 2.0  # seconds between two looks at all folders; sooner when one ends or `ensure` is called

_started: list[subprocess.Popen[bytes]] = []


def ensure(home: Home, engine: Sequence[str] | None = None) -> None:
    """See to it that a scheduler looks at the queue of `home`; call it after each change of the queue."""
    home.create()
    _started[:] = [child for child in _started if child.poll() is None]
    if not _free(home):
        os.utime(_lock(home))  # wakes the one that holds the lock
        time.sleep(TICK / 5)
        if not _free(home):  # who only asked for one that is `alive` has let go by now
            return
    command = [sys.executable, "-P", "-m", "trainctl.launch.scheduler", str(home.path), *(engine or processes.ENGINE)]
    with open(home.path / "scheduler.log", "ab") as log:
        _started.append(
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=home.path,
                env={**os.environ, **processes.import_path()},
            )
        )


def alive(home: Home) -> bool:
    """True if a scheduler serves `home`."""
    try:
        descriptor = os.open(_lock(home), os.O_RDONLY)  # also where one may only look
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _free(home: Home) -> bool:
    with _elected(home) as free:
        return free


def holding(run: RunDir, gpus: list[str]) -> Held:
    """What a run that was started already holds of a machine with the GPUs `gpus`."""
    device = str(run.json("launch.json").get("device", ""))
    return Held(run.id, slots.need(run, gpus).share, device.removeprefix("cuda:") if device.startswith("cuda:") else "")


def _lock(home: Home) -> Path:
    return home.path / "scheduler.lock"


@contextmanager
def _elected(home: Home) -> Iterator[bool]:
    """Try the lock; True while it is ours."""
    try:
        descriptor = os.open(_lock(home), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise MachineError(f"cannot write {_lock(home)}: {error.strerror}") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


@dataclass
class Worker:
    """A run at work: what it holds, and its process if it is a child of ours."""

    run: RunDir
    held: Held
    child: subprocess.Popen[bytes] | None


@dataclass
class Scheduler:
    """The queue of one home; `step` does one round of it."""

    home: Home
    engine: Sequence[str]
    gpus: list[str]
    workers: dict[str, Worker] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def step(self) -> bool:
        """Record who ended, count in who works, start who fits; False when nothing is queued or at work."""
        self.reap()
        queue = self.scan()
        before: dict[str, str] = {}
        for run in queue:
            wanted = slots.need(run, self.gpus)
            gpu = judge(wanted, [worker.held for worker in self.workers.values()], self.gpus, before).gpu
            if gpu is None:
                before.setdefault(kind(wanted), run.id)
            else:
                self.launch(run, wanted, gpu)
        return bool(queue or self.workers)

    def reap(self) -> bool:
        """Drop the workers that ended, writing exit.json for a child that left none; True if there was one."""
        ended = [worker for worker in self.workers.values() if self._ended(worker)]
        for worker in ended:
            del self.workers[worker.run.id]
            if worker.child is not None:
                _say(f"{worker.run.id} ended with code {worker.child.returncode}")
                _record(worker.run, worker.child)
        return bool(ended)

    def scan(self) -> list[RunDir]:
        """Look at all folders: runs at work are counted in; the queued ones are returned in their order."""
        queue: list[tuple[float, str, RunDir]] = []
        for run in self.home.run_dirs():
            if run.id in self.workers or (run.path / "exit.json").exists():
                continue
            status = run.status()
            if status == "queued":
                created = run.json("run.json").get("created")
                if run.id not in self.refused:
                    queue.append((created if isinstance(created, (int, float)) else 0.0, run.id, run))
            elif status not in FINAL and processes.is_local(run):
                self._adopt(run)
        return [run for _, _, run in sorted(queue, key=lambda item: item[:2])]

    def launch(self, run: RunDir, wanted: slots.Need, gpu: str) -> None:
        """Start one run on the GPU `gpu` ("" for none)."""
        # A recipe that pins a GPU names it by its number among all, so all must stay visible.
        visible = gpu if wanted.gpu == "any" and gpu in self.gpus else ""
        try:
            child = processes.start(
                run, threads=wanted.threads, gpu=visible, device=f"cuda:{gpu}" if gpu else "cpu", engine=self.engine
            )
        except processes.Busy:
            # Started by a scheduler that was killed before it could write the pid, or claimed for a moment.
            self.workers[run.id] = Worker(run, Held(run.id, wanted.share, gpu), None)
            return
        except (TrainctlError, OSError) as error:
            _say(f"{run.id} cannot be started: {error}")
            self.refused.add(run.id)  # one bad folder must not stop the others
            with suppress(OSError):
                processes.record_end(run, "failed", code=MACHINE, reason=f"cannot be started: {error}")
            return
        if child is not None:
            _say(f"{run.id} started: pid {child.pid}{f', GPU {gpu}' if gpu else ''}")
            self.workers[run.id] = Worker(run, Held(run.id, wanted.share, gpu), child)

    def _adopt(self, run: RunDir) -> None:
        """Count in a run that a scheduler before this one started."""
        _say(f"{run.id} is at work already")
        self.workers[run.id] = Worker(run, holding(run, self.gpus), None)

    def _ended(self, worker: Worker) -> bool:
        if worker.child is not None:
            return _reaped(worker.child)
        if worker.run.status() in FINAL:
            return True
        try:
            with processes.claim(worker.run):
                return worker.run.status() in (*FINAL, "queued")
        except processes.Busy:
            return False
        except TrainctlError:
            return True  # its folder has gone


def _reaped(child: subprocess.Popen[bytes]) -> bool:
    """True if `child` has ended. What it left behind in its session is ended too: it still holds cores and the lock."""
    if child.returncode is None and os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return False
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # before its pid is given back, so this can be nobody else's group
        child.wait()
    return True


def _record(run: RunDir, child: subprocess.Popen[bytes]) -> None:
    """Write exit.json for a child that died without a word."""
    try:
        with processes.claim(run, patience=2.0):
            launch = run.json("launch.json")
            if launch.get("pid") != child.pid:
                return  # it has been queued again meanwhile
            code = child.returncode
            if code >= 0:
                reason = (
                    f"the engine ended with code {code} and left no exit.json; `trainctl logs {run.id}` may say why"
                )
                processes.record_end(run, "failed", code=code, reason=reason)
            elif launch.get("stop_requested"):
                reason = f"ended by signal {-code} after it was asked to stop"
                processes.record_end(run, "killed", number=-code, reason=reason)
            else:
                guess = " (out of memory?)" if code == -9 else ""
                reason = f"killed by signal {-code} from outside{guess}"
                processes.record_end(run, "killed", number=-code, reason=reason)
    except TrainctlError as error:
        _say(f"{run.id}: {error}")


def serve(home: Home, engine: Sequence[str]) -> None:
    """Be the scheduler of `home` until nothing is queued or at work; return at once if there is one."""
    tries = 10
    while True:
        with _elected(home) as free:
            if free:
                _say(f"scheduler {os.getpid()} serves {home.path}")
                _loop(Scheduler(home, engine, slots.gpus()))
        if not free:
            # Somebody may only have tried the lock for a moment; one who serves still holds it later.
            tries -= 1
            if not tries:
                return
            time.sleep(0.05)
            continue
        # A run queued after the last look, while the lock was still held, would have nobody: look once more.
        if not Scheduler(home, engine, []).scan():
            _say(f"scheduler {os.getpid()} leaves: nothing is queued")
            return


def _loop(scheduler: Scheduler) -> None:
    lock = _lock(scheduler.home)
    while True:
        seen = lock.stat().st_mtime_ns
        if not scheduler.step():
            return
        due = time.monotonic() + RESCAN
        while time.monotonic() < due and lock.stat().st_mtime_ns == seen and not scheduler.reap():
            time.sleep(TICK)


def _say(text: str) -> None:
    print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)


def main() -> None:
    """The process behind `ensure`."""
    parser = argparse.ArgumentParser(prog="trainctl.launch.scheduler")
    parser.add_argument("home", type=Path)
    parser.add_argument("engine", nargs=argparse.REMAINDER, help="the command that a run folder is appended to")
    given = parser.parse_args()
    try:
        serve(Home(given.home).create(), given.engine or processes.ENGINE)
    except Exception:
        _say(traceback.format_exc())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
