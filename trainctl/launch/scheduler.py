"""The local queue: one process per home that starts queued runs, in the order of `queue`, as cores or GPUs come free.

    python -m trainctl.launch.scheduler HOME

It keeps no list: the queue is the folders whose status is `queued`, and those that are to be taken up again (see
`again`). It is elected by a lock, so there is never a second one; it may be killed at any time, since engines outlive
it and the next one counts them in; and it leaves when there is nothing to start and nothing at work.
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

from engine.rundir import FINAL, STOP_SIGNALS, RunDir
from trainctl.errors import MACHINE, TrainctlError, refused
from trainctl.home import Home
from trainctl.launch import again, processes, queue, signals, slots
from trainctl.launch.waiting import Held, hold, judge

TICK = 0.1  # seconds between two looks at the children
RESCAN = 2.0  # seconds between two looks at all folders; sooner when one ends or `ensure` is called
SETTLED = 2.0  # seconds after which a folder that changed again would show another time
VMSTAT = Path("/proc/vmstat")

_started: list[subprocess.Popen[bytes]] = []


def ensure(home: Home, engine: Sequence[str] | None = None) -> None:
    """See to it that a scheduler looks at the queue of `home`; call it after each change of the queue.

    None is started for a paused queue: there is nothing it could do. MachineError if one cannot be started.
    """
    home.create()
    _started[:] = [child for child in _started if child.poll() is None]
    if not _free(home):
        os.utime(lock(home))  # wakes the one that holds the lock
        time.sleep(TICK / 5)
        if not _free(home):  # who only asked for one that is `alive` has let go by now
            return
    if queue.paused(home):
        return
    command = [sys.executable, "-P", "-m", "trainctl.launch.scheduler", str(home.path), *(engine or processes.ENGINE)]
    told = home.path / "scheduler.log"
    try:
        with open(told, "ab") as log:
            _started.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=home.path,
                    env={**os.environ, **processes.import_path(), **processes.WORDS},
                )
            )
    except OSError as error:
        raise refused(f"cannot start a scheduler that writes {told}", error) from None


def alive(home: Home) -> bool:
    """True if a scheduler serves `home`."""
    try:
        descriptor = os.open(lock(home), os.O_RDONLY)  # also where one may only look
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
    return hold(run.id, slots.need(run, gpus), device.removeprefix("cuda:") if device.startswith("cuda:") else "")


def lock(home: Home) -> Path:
    """The file that the scheduler of `home` holds (flock)."""
    return home.path / "scheduler.lock"


@contextmanager
def _elected(home: Home) -> Iterator[bool]:
    """Try the lock; True while it is ours."""
    try:
        descriptor = os.open(lock(home), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise refused(f"cannot write {lock(home)}", error) from None
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
    """A run at work: what it holds, and its process if it is a child of ours.

    `oom_kills` is how many processes the kernel had killed for lack of memory when it was started.
    """

    run: RunDir
    held: Held
    child: subprocess.Popen[bytes] | None
    oom_kills: int | None = None


@dataclass
class Scheduler:
    """The queue of one home; `step` does one round of it."""

    home: Home
    engine: Sequence[str]
    gpus: list[str]
    workers: dict[str, Worker] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    settled: dict[str, int] = field(default_factory=dict)
    """When the folders of runs that ended for good were changed last."""
    leaving: set[str] = field(default_factory=set)
    """Runs that are to be taken up again as soon as their processes have gone."""

    def step(self) -> bool:
        """Record who ended, count in who works, start who fits; False when nothing can be started or is at work."""
        self.reap()
        waiting = self.scan()
        before: dict[str, str] = {}
        for run in waiting:
            wanted = slots.need(run, self.gpus)
            verdict = judge(wanted, [worker.held for worker in self.workers.values()], self.gpus, before)
            for kept in verdict.keeps:
                before.setdefault(kept, run.id)
            if verdict.gpu is not None and not queue.paused(self.home):  # it may have been paused this moment
                self.launch(run, wanted, verdict.gpu)
        return bool(waiting or self.workers or self.leaving)

    def reap(self) -> bool:
        """Drop the workers that ended, writing exit.json for a child that left none; True if there was one."""
        ended = [worker for worker in self.workers.values() if self._ended(worker)]
        for worker in ended:
            del self.workers[worker.run.id]
            if worker.child is not None:
                _say(f"{worker.run.id} ended with code {worker.child.returncode}")
                _record(worker.run, worker.child, worker.oom_kills)
        return bool(ended)

    def scan(self) -> list[RunDir]:
        """Look at all folders: runs at work are counted in, and those that are to be taken up again are queued.

        Returns the runs that may start, in their order: those that are queued and not held; none if the queue is
        paused.
        """
        found: list[RunDir] = []
        self.leaving.clear()
        for run in self.home.run_dirs():
            if run.id in self.workers or run.id in self.refused:
                continue
            changed = _changed(run)
            if changed is None or self.settled.get(run.id) == changed:
                continue
            status = run.status()
            if status in FINAL and again.due(run):
                self._take_up(run)
                status = run.status()
            if status == "queued":
                found.append(run)
            elif status in FINAL:
                if abs(time.time() - changed / 1e9) > SETTLED and run.id not in self.leaving:
                    self.settled[run.id] = changed
            elif processes.is_local(run):
                self._adopt(run)
        if queue.paused(self.home):
            return []
        return [run for run in queue.order(found) if not queue.place(run).held]

    def _take_up(self, run: RunDir) -> None:
        try:
            if said := again.take_up(run):
                _say(f"{run.id} {said}")
        except processes.Busy:
            self.leaving.add(run.id)
        except (TrainctlError, OSError) as error:
            _say(f"{run.id} cannot be queued again: {error}")
            self.refused.add(run.id)

    def launch(self, run: RunDir, wanted: slots.Need, gpu: str) -> None:
        """Start one run on the GPU `gpu` ("" for none)."""
        # A recipe that pins a GPU names it by its number among all, so all must stay visible.
        visible = gpu if wanted.gpu == "any" and self.gpus else ""
        held, oom_kills = hold(run.id, wanted, gpu), _oom_kills()
        try:
            child = processes.start(
                run, threads=wanted.threads, gpu=visible, device=f"cuda:{gpu}" if gpu else "cpu", engine=self.engine
            )
        except processes.Busy:
            # Started by a scheduler that was killed before it could write the pid, or claimed for a moment.
            self.workers[run.id] = Worker(run, held, None)
            return
        except (TrainctlError, OSError) as error:
            _say(f"{run.id} cannot be started: {error}")
            hint = error.hint if isinstance(error, TrainctlError) else ""
            with suppress(OSError):
                processes.record_end(run, "failed", code=MACHINE, reason=f"cannot be started: {error}", hint=hint)
            if run.status() == "queued":  # not even that can be written: one bad folder must not stop the others
                self.refused.add(run.id)
            return
        if child is not None:
            _say(f"{run.id} started: pid {child.pid}{f', GPU {gpu}' if gpu else ''}")
            self.workers[run.id] = Worker(run, held, child, oom_kills)

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
        signals.kill_session(child.pid)  # before its pid is given back, so this can be nobody else's session
        child.wait()
    return True


def _changed(run: RunDir) -> int | None:
    """When a file of the folder itself was made, replaced or deleted last, in ns; None if the folder has gone."""
    try:
        return run.path.stat().st_mtime_ns
    except OSError:
        return None


def _oom_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory since it was started; None if it does not say."""
    try:
        counted = dict(line.split(maxsplit=1) for line in VMSTAT.read_text().splitlines())
        return int(counted["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def _record(run: RunDir, child: subprocess.Popen[bytes], oom_kills: int | None = None) -> None:
    """Write exit.json for a child that died without a word; `oom_kills` as of `Worker`."""
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
            elif code == -signal.SIGKILL and oom_kills is not None and (_oom_kills() or 0) > oom_kills:
                reason = "killed by the kernel for lack of memory (probably: it killed a process while this one worked)"
                processes.record_end(run, "oom", number=-code, reason=reason)
            else:
                guess = " (out of memory?)" if code == -signal.SIGKILL else ""
                reason = f"killed by signal {-code} from outside{guess}"
                processes.record_end(run, STOP_SIGNALS.get(-code, "killed"), number=-code, reason=reason)
    except (TrainctlError, OSError) as error:
        _say(f"{run.id}: how it ended cannot be written: {error}")  # it counts as lost


def serve(home: Home, engine: Sequence[str]) -> None:
    """Be the scheduler of `home` until there is nothing to start or at work; return at once if there is one."""
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
            _say(f"scheduler {os.getpid()} leaves: there is nothing to start")
            return


def _loop(scheduler: Scheduler) -> None:
    bell = lock(scheduler.home)  # which `ensure` rings
    while True:
        seen = bell.stat().st_mtime_ns
        if not scheduler.step():
            return
        due = time.monotonic() + RESCAN
        while time.monotonic() < due and bell.stat().st_mtime_ns == seen and not scheduler.reap():
            time.sleep(TICK)


def _say(text: str) -> None:
    with suppress(OSError):  # a full disk must not end the queue
        print(time.strftime("%Y-%m-%d %H:%M:%S"), text, flush=True)


def main() -> None:
    """The process behind `ensure`."""
    parser = argparse.ArgumentParser(prog="trainctl.launch.scheduler")
    parser.add_argument("home", type=Path)
    parser.add_argument("engine", nargs=argparse.REMAINDER, help="the command that a run folder is appended to")
    given = parser.parse_args()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever ignores it, and starts us, has the kernel reap our children
    try:
        serve(Home(given.home).create(), given.engine or processes.ENGINE)
    except Exception:
        _say(traceback.format_exc())
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
