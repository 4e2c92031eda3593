"""Runs: how many there are, the queue, and those that are dead or silent."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from engine.rundir import FINAL, RunDir, is_here, me, process_start_time
from trainctl.doctor.finding import OK, WARNING, Finding, counted, lines, some, span
from trainctl.doctor.view import View, moment
from trainctl.launch import again, processes, queue, scheduler

SILENT = 120.0  # seconds without a heartbeat after which a living process is taken to hang; it beats every 5
RETRIED = ("lost", "preempted", "oom")  # what the queue may take up by itself, see launch/again.py


def check(view: View) -> Iterator[Finding]:
    """How many runs there are, and all that is wrong with them."""
    counts = Counter(view.runs.values())
    if view.unlisted:
        yield Finding("runs", WARNING, str(view.unlisted), view.unlisted.hint)
        return
    yield Finding("runs", OK, ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "none")
    yield from _queue(view, counts["queued"])
    yield from _lost(view)
    yield from _silent(view)


def waiting(view: View) -> list[RunDir]:
    """Runs that a scheduler is to start: queued and not held, or due for an automatic retry."""
    return [
        run
        for run, status in view.runs.items()
        if (status == "queued" and not queue.place(run).held) or (status in RETRIED and again.due(run))
    ]


def lost(view: View) -> list[RunDir]:
    """Runs whose process died without a word, and that are not written down as lost."""
    found = [run for run, status in view.runs.items() if status == "lost"]
    return [run for run in found if run.json("exit.json").get("status") not in FINAL]


def why_lost(run: RunDir) -> str:
    """How it is known that the run is dead, and since when it gave no sign of life."""
    process = run.process()
    seen = moment(process)
    return (
        f"{_death(process)}, {'without a sign of life' if seen is None else f'silent for {span(time.time() - seen)}'}"
    )


def _death(process: dict[str, Any]) -> str:
    if not is_here(process):
        return f"on host {process['host']}"
    pid, boot, now = process.get("pid"), process.get("boot"), me()["boot"]
    if boot and now and boot != now:
        return "the machine was started anew since"
    if pid is None and isinstance(folder := process.get("folder"), str):
        return f"its process worked in {folder}, from where this folder was copied or moved"
    taken = isinstance(pid, int) and 0 < pid < 2**31 and process_start_time(pid) is not None
    return f"process {pid} has gone{', its number is reused' if taken else ''}"


def _queue(view: View, queued: int) -> Iterator[Finding]:
    held = [run.id for run, status in view.runs.items() if status == "queued" and queue.place(run).held]
    paused, left = queue.paused(view.home), waiting(view)
    if paused:
        what = f"{counted(queued, 'queued run')} will not start" if queued else "what is queued next will wait"
        yield Finding("queue", WARNING, f"paused: {what}", "trainctl queue continue")
    if held:
        what = f"{counted(len(held), 'run')} will not start, for somebody holds {'it' if len(held) == 1 else 'them'}"
        yield Finding("held runs", WARNING, f"{what}: {some(held)}", f"trainctl queue continue {' '.join(held[:5])}")
    serves = scheduler.alive(view.home)
    if left and not serves and not paused:
        detail = f"none, but {counted(len(left), 'run')} wait{'s' if len(left) == 1 else ''}"
        yield Finding("scheduler", WARNING, detail, "trainctl doctor --fix starts one", fixable=True)
    else:
        yield Finding("scheduler", OK, "at work" if serves else "not needed now")


def _lost(view: View) -> Iterator[Finding]:
    found = lost(view)
    here = [run for run in found if processes.is_local(run)]
    if found:
        retried = [run for run in found if again.due(run)]
        each = [
            f"{view.name(run)}: {why_lost(run)}{'; the queue takes it up again by itself' if run in retried else ''}"
            for run in found
        ]
        detail = lines(f"{counted(len(found), 'run')} ended without a word", each)
        left = [run.id for run in found if run not in retried]
        hints = [f"trainctl resume {' '.join(left[:5])}"] if left else []
        hints += ["--fix writes down that they are lost"] if here else []
        yield Finding("lost runs", WARNING, detail, "; ".join(hints), fixable=bool(here))


def _silent(view: View) -> Iterator[Finding]:
    """A process that lives and does not beat."""
    still = {worker.run for worker in view.workers if worker.stopped}  # which is said elsewhere
    each = []
    for run, status in view.runs.items():
        if status in ("running", "stopping") and run.id not in still and processes.is_local(run):
            beat = run.json("heartbeat.json")
            seen = moment(beat)
            if seen is not None and time.time() - seen > SILENT:
                each.append(f"{view.name(run)}: process {beat.get('pid')}, for {span(time.time() - seen)}")
    if each:
        detail = lines(f"{counted(len(each), 'run')} without a sign of life, though its process is there", each)
        yield Finding("silent runs", WARNING, detail, "its disk or GPU may hang; `trainctl stop` ends it")
