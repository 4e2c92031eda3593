"""Mends what can be mended without a loss: `trainctl doctor --fix`.

Each step may be taken twice, and beside a scheduler at work: a run is claimed before it is changed, and a process is
ended only if nothing of a run depends on it. No healthy run is stopped, and nothing of value is deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import psutil

from engine.rundir import FINAL
from trainctl.doctor import runs
from trainctl.doctor.finding import counted, size
from trainctl.doctor.integrity import damage
from trainctl.doctor.leftovers import leftovers
from trainctl.doctor.orphans import Orphan, orphans
from trainctl.doctor.view import View
from trainctl.errors import RUN_FAILED, TrainctlError
from trainctl.home import Home
from trainctl.launch import processes, queue, scheduler
from trainctl.registry import ingest, schema

GRACE = 5.0  # seconds between SIGTERM and SIGKILL for an orphan: it has nothing to save
COMES = 5.0  # seconds in which a scheduler that was started is at work, also on a machine with much to do


def mend(home: Home) -> Iterator[str]:
    """Do all of it; a sentence for each thing that was done, or that could not be."""
    home.create()
    view = View(home)
    steps: tuple[Callable[[View], Iterator[str]], ...] = (_lost, _orphans, _leftovers, _index, _queue)
    for step in steps:
        try:
            yield from step(view)
        except (OSError, TrainctlError) as error:
            yield f"not mended: {error}"


def _lost(view: View) -> Iterator[str]:
    """A run is written down as lost by the machine on which its process was, which alone knows for certain."""
    for run in runs.lost(view):
        if not processes.is_local(run):
            continue
        why = runs.why_lost(run)
        try:
            with processes.claim(run):
                if run.status() == "lost" and run.json("exit.json").get("status") not in FINAL:
                    processes.record_end(run, "lost", code=RUN_FAILED, reason=why)
                    yield f"{view.name(run)}: written down as lost ({why})"
        except processes.Busy:
            continue  # somebody resumes it this moment
        except (OSError, TrainctlError) as error:
            yield f"{view.name(run)}: not mended: {error}"


def _orphans(view: View) -> Iterator[str]:
    for orphan in orphans(view):
        if orphan.certain and (how := _end(orphan)):
            yield f"process {orphan.worker.pid} ended ({how}): {orphan.why}"


def _end(orphan: Orphan) -> str:
    """SIGTERM, then SIGKILL, to the process and all that descends from it; which of them it took, "" if it had gone."""
    try:
        process = psutil.Process(orphan.worker.pid)
        if abs(process.create_time() - orphan.worker.started) > 0.01:
            return ""  # the number is another process's by now
        all_of_it = [process, *process.children(recursive=True)]
    except psutil.Error:
        return ""
    how = "SIGTERM"
    _signal(all_of_it, psutil.Process.terminate)
    _, alive = psutil.wait_procs(all_of_it, timeout=GRACE)
    if alive:
        how = "SIGKILL"
        _signal(alive, psutil.Process.kill)
        _, alive = psutil.wait_procs(alive, timeout=GRACE)
    return how if process not in alive else ""


def _signal(all_of_it: Sequence[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in all_of_it:
        try:
            send(process)
        except psutil.Error:
            continue


def _leftovers(view: View) -> Iterator[str]:
    kinds: dict[str, list[int]] = {}
    for left in leftovers(view.home):
        if left.delete():
            kinds.setdefault(left.kind, []).append(left.bytes)
        else:
            yield f"not mended: {left.path} cannot be deleted"
    for kind, bytes in kinds.items():
        yield f"{counted(len(bytes), kind)} deleted, {size(sum(bytes))}"


def _index(view: View) -> Iterator[str]:
    if why := damage(view.home):
        with schema.writing(view.home, ingest.WAIT) as alone:
            if alone and damage(view.home):
                ingest.build_again(view.home)
                yield f"the index was built again: {why}"


def _queue(view: View) -> Iterator[str]:
    now = View(view.home)
    waiting = runs.waiting(now)
    if waiting and not queue.paused(view.home) and not scheduler.alive(view.home):
        scheduler.ensure(view.home)
        deadline = time.monotonic() + COMES
        while not scheduler.alive(view.home) and time.monotonic() < deadline:
            time.sleep(scheduler.TICK)
        yield f"a scheduler was started: {counted(len(waiting), 'run')} waited"
