"""Processes that nobody needs any more: engines whose run has ended or gone, schedulers without the lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from engine.rundir import FINAL, RunDir
from trainctl.doctor.finding import OK, WARNING, Finding, counted, lines, size, some, span
from trainctl.doctor.locks import holder
from trainctl.doctor.view import View, moment
from trainctl.doctor.workers import PROCESSES, Worker
from trainctl.launch import scheduler

WELL_OVER = 60.0  # seconds after its last word for which an engine may still be on its way out, or a scheduler come


@dataclass(frozen=True)
class Orphan:
    """A process, and why nobody needs it. `certain`: nothing is lost if it is ended."""

    worker: Worker
    why: str
    certain: bool


def check(view: View) -> Iterator[Finding]:
    """Orphans with the GPU memory that they hold, and processes of living runs that stand still."""
    found = orphans(view)
    if found:
        each = [f"process {orphan.worker.pid}: {orphan.why}{_memory(view, orphan.worker.pid)}" for orphan in found]
        certain = [orphan for orphan in found if orphan.certain]
        pids = " ".join(str(orphan.worker.pid) for orphan in found if not orphan.certain)
        hint = "trainctl doctor --fix ends " + ("them" if len(certain) == len(found) else "those that are surely over")
        detail = lines(f"{counted(len(found), 'process')} that nobody needs", each)
        hint = hint if certain else f"look at them; to end them: kill {pids}"
        yield Finding("orphans", WARNING, detail, hint, fixable=bool(certain))
    else:
        yield Finding("orphans", OK, "none")
    lonely = {orphan.worker.pid for orphan in found}
    still = [worker for worker in view.workers if worker.stopped and worker.run and worker.pid not in lonely]
    if still:
        each = [f"{worker.run}: process {worker.pid}" for worker in still]
        pids = " ".join(str(worker.pid) for worker in still)
        yield Finding("stopped runs", WARNING, lines("they stand still (state T)", each), f"kill -CONT {pids}")


def orphans(view: View) -> list[Orphan]:
    """All of them, as far as it can be told."""
    found = []
    for worker in view.workers:
        why, certain = _engine(view, worker) if worker.run else _scheduler(view, worker)
        if why:
            found.append(Orphan(worker, why, certain))
    return found


def _engine(view: View, worker: Worker) -> tuple[str, bool]:
    run, now = view.home.run(worker.run), time.time()
    try:
        os.lstat(run.path)
    except FileNotFoundError:
        if moved := _moved(worker):
            return f"its folder {run.id} was moved to {moved}", False
        return f"its folder {run.id} is gone", view.home.runs.is_dir()
    except OSError:
        return "", False
    if not worker.trains or run.id in view.odd:
        return "", False
    ended = run.json("exit.json")
    if ended.get("status") in FINAL:
        when = moment(ended)
        # What started after that is a new attempt, whose folder is about to be made ready.
        if when is None or now - when < WELL_OVER or worker.started > when:
            return "", False
        return f"run {run.id} ended {span(now - when)} ago as {ended['status']}", True
    if now - worker.started < WELL_OVER or _belongs(run, worker):
        return "", False
    return f"run {run.id} has another process or none now", False


def _moved(worker: Worker) -> str:
    """Where the folder is now, if the files that the process has open there were not deleted."""
    for entry in (PROCESSES / str(worker.pid) / "fd").glob("*"):
        with suppress(OSError):
            path = entry.readlink()
            if path.name in ("engine.lock", "stdout.log", "events.jsonl") and path.exists():
                return str(path.parent)
    return ""


def _belongs(run: RunDir, worker: Worker) -> bool:
    """True if the run names this process, or one that it descends from."""
    import psutil

    named = {run.json(name).get("pid") for name in ("heartbeat.json", "launch.json")}
    try:
        process = psutil.Process(worker.pid)
        return not named.isdisjoint({worker.pid, os.getsid(worker.pid), *(parent.pid for parent in process.parents())})
    except (psutil.Error, OSError):
        return True  # it has gone meanwhile


def _scheduler(view: View, worker: Worker) -> tuple[str, bool]:
    """A scheduler without the lock takes it within a second, or leaves."""
    lock = scheduler.lock(view.home)
    pid = holder(lock)
    if pid == worker.pid or time.time() - worker.started < WELL_OVER or (pid is None and lock.exists()):
        return "", False
    return "a scheduler without the lock, so it does nothing", True


def _memory(view: View, pid: int) -> str:
    on = [gpu for gpu in view.gpus.found if pid in {each for each, _ in gpu.processes}]
    held = view.gpus.memory_of(frozenset({pid}))
    if not on:
        return ""
    return f"; it holds {size(held) if held else 'memory'} of GPU {some([gpu.number for gpu in on])}"
