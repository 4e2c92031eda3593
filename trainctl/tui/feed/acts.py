"""What a person can do to runs from the dashboard, to one or to many. Each act returns what to say of it.

An act goes on after a run that refuses it, and names that one; it raises only if nothing could be done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from engine.rundir import AT_WORK, FINAL, RunDir
from trainctl.cli.common import printable
from trainctl.errors import TrainctlError, UsageError
from trainctl.home import Home
from trainctl.launch import again, folders, processes, queue, scheduler
from trainctl.registry import labels, query

NAMED = 3  # refusals that are told one by one
PATIENCE = 3.0  # seconds for counting what would be lost


def stop(home: Home, ids: Sequence[str]) -> str:
    """Ask runs to stop after a checkpoint; queued ones are cancelled."""

    def one(run: RunDir) -> str:
        before = run.status()
        if before in FINAL:
            if again.spare(run):
                return "kept from a retry"
            raise UsageError(f"{run.id} has ended already: {before}")
        if before == "stopping":
            raise UsageError(f"{run.id} is stopping already")
        processes.request_stop(run)
        return "cancelled" if before == "queued" and run.status() in FINAL else "asked to stop"

    # The queued first, or the scheduler would start one in the place of a stopped one.
    return _each(home, sorted(ids, key=lambda run: home.run(run).status() != "queued"), one)


def kill(home: Home, ids: Sequence[str]) -> str:
    """End runs at once that were asked to stop; what they did since their last checkpoint is lost."""

    def one(run: RunDir) -> str:
        status = run.status()
        if status != "stopping":
            raise UsageError(f"{run.id} {'has ended already:' if status in FINAL else 'is'} {status}")
        processes.kill(run)
        return "killed"

    return _each(home, ids, one)


def resume(home: Home, ids: Sequence[str]) -> str:
    """Queue ended runs again, each to go on from its last checkpoint."""
    return _queued(home, ids, folders.requeue, "queued again")


def retry(home: Home, ids: Sequence[str]) -> str:
    """Queue ended runs to begin anew; what they have is kept."""
    return _queued(home, ids, folders.retry, "queued from epoch 0")


def _queued(home: Home, ids: Sequence[str], deed: Callable[[RunDir], None], said: str) -> str:
    def one(run: RunDir) -> str:
        deed(run)
        return said

    return _changed(home, _each(home, ids, one))


def pause(home: Home) -> str:
    """Start nothing new until `go_on`."""
    queue.pause(home)
    return "the queue is paused: runs at work go on, nothing new is started"


def go_on(home: Home) -> str:
    """Let the queue go on."""
    queue.unpause(home)
    return "the queue goes on"


def hold(home: Home, ids: Sequence[str], on: bool) -> str:
    """Let others pass queued runs, or (`on` False) let these take part again."""

    def one(run: RunDir) -> str:
        queue.hold([run], on)
        return "held: the others pass it" if on else "let go"

    return _changed(home, _each(home, ids, one))


def move(home: Home, run: str, to: str) -> str:
    """Move a queued run up or down, or make it the first or the last."""
    if not queue.move(home, home.run(run), to):
        return f"{run} is {'first' if to in ('up', 'first') else 'last'} already"
    return _changed(home, f"{run} was moved {to}" if to in ("up", "down") else f"{run} is {to} now")


def prioritize(home: Home, ids: Sequence[str], by: int) -> str:
    """Raise the priority of queued runs by so much."""

    def one(run: RunDir) -> str:
        priority = queue.place(run).priority + by
        queue.prioritize([run], priority)
        return f"given the priority {priority}"

    return _changed(home, _each(home, ids, one))


def _changed(home: Home, said: str) -> str:
    scheduler.ensure(home)
    return said


def tag(home: Home, ids: Sequence[str], add: Sequence[str], remove: Sequence[str] = ()) -> str:
    """Put tags on runs and take others off."""
    words = " ".join((*add, *(f"-{tag}" for tag in remove)))

    def one(run: RunDir) -> str:
        labels.change(run, add=add, remove=remove)
        return f"tagged {words}"

    return _each(home, ids, one)


def note(home: Home, ids: Sequence[str], text: str) -> str:
    """Write a note on runs; "" deletes it."""

    def one(run: RunDir) -> str:
        labels.change(run, note=text)
        return "given the note" if text else "left without a note"

    return _each(home, ids, one)


def archive(home: Home, ids: Sequence[str], undo: bool = False) -> str:
    """Hide runs from lists, or bring them back."""

    def one(run: RunDir) -> str:
        labels.change(run, archived=not undo)
        return "brought back" if undo else "archived"

    return _each(home, ids, one)


def delete(home: Home, ids: Sequence[str]) -> str:
    """Delete runs with all that is in their folders; one that is at work refuses."""

    def one(run: RunDir) -> str:
        folders.remove(home, run)
        return "deleted"

    return _each(home, ids, one)


def _each(home: Home, ids: Sequence[str], deed: Callable[[RunDir], str]) -> str:
    """Do `deed` to each run and say it in one sentence, as `3 asked to stop; base1 has ended already: done`."""
    done: dict[str, list[str]] = {}
    errors: list[TrainctlError] = []
    for run in ids:
        try:
            done.setdefault(deed(home.run(run)), []).append(run)
        except TrainctlError as error:
            errors.append(error)
        except OSError as error:
            errors.append(TrainctlError(f"{run}: {error.strerror or error}"))
    refused = [str(error).removeprefix("run ") for error in errors[:NAMED]]
    if len(errors) > NAMED:
        refused.append(f"and {len(errors) - NAMED} more")
    if errors and not done:
        raise errors[0] if len(errors) == 1 else type(errors[0])("; ".join(refused))
    told = [f"{runs[0]} was {what}" if len(runs) == 1 else f"{len(runs)} {what}" for what, runs in done.items()]
    return printable("; ".join((*told, *refused)))


@dataclass(frozen=True)
class Loss:
    """What deleting runs would lose. `exact` is False if counting took too long: then it is at least so much."""

    runs: int
    at_work: int
    """How many must be stopped first."""
    epochs: int
    size: int
    """Bytes on disk."""
    checkpoints: int
    evaluations: int
    exact: bool = True


def loss(home: Home, ids: Iterable[str], patience: float = PATIENCE) -> Loss:
    """Count it, for at most `patience` seconds. Links are counted themselves, not what they lead to."""
    wanted = list(ids)
    rows = query.runs(home, wanted)
    deadline = time.monotonic() + patience
    size = checkpoints = evaluations = 0
    exact = True
    for run in wanted:
        if time.monotonic() > deadline:
            exact = False
            break
        for folder, _, names in os.walk(home.run(run).path):
            is_evaluation = os.path.basename(folder) == "eval"  # noqa: PTH119
            for name in names:
                try:
                    size += os.lstat(f"{folder}/{name}").st_blocks * 512
                except OSError:  # gone meanwhile
                    continue
                checkpoints += name.endswith(".safetensors")
                evaluations += is_evaluation and name.endswith(".json") and not name.endswith("-tsne.json")
    at_work = sum(row.status in AT_WORK for row in rows)
    return Loss(len(wanted), at_work, sum(row.epoch for row in rows), size, checkpoints, evaluations, exact)
