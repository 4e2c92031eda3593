"""Runs whose files are damaged: not what a kill at any moment can leave, but a disk, a copy or a hand."""

from __future__ import annotations

import os
from collections.abc import Iterator

from engine.remedies import remedy_of
from engine.rundir import RunDir, content
from trainctl.doctor.finding import WARNING, Finding, counted, lines
from trainctl.doctor.view import View
from trainctl.registry import query

EVENTS = ("events.jsonl", "checkpoints", "eval", "exit.json", "heartbeat.json", "launch.json", "stdout.log")
"""What only an engine, or who starts one, leaves in a folder."""


def check(view: View) -> Iterator[Finding]:
    """Runs that cannot be read, and files of others that are damaged in part."""
    unreadable, partly, closed = list(_unreadable(view)), list(_partly(view)), _closed(view)
    if unreadable:
        hint = "put back the file from a copy, or delete the folder"
        first = f"{counted(len(unreadable), 'folder')} cannot be read"
        yield Finding("damaged runs", WARNING, lines(first, unreadable), hint)
    if closed:
        each = [f"{name}: {error.strerror}" for name, error in closed.items()]
        remedies = dict.fromkeys(filter(None, map(remedy_of, closed.values())))
        first = f"{counted(len(closed), 'folder')} cannot be looked into"
        yield Finding("closed runs", WARNING, lines(first, each), "; ".join(remedies))
    if partly:
        hint = "the rest is used; if it happens again, look at the disk"
        yield Finding("damaged files", WARNING, lines("in part, of runs that can be read", partly), hint)


def _unreadable(view: View) -> Iterator[str]:
    yield from (f"{run}: {why}" for run, why in view.odd.items())
    for run in view.runs:
        if why := "run.json cannot be read" if not run.json("run.json") else _recipe(view, run):
            yield f"{run.id}: {why}"
    yield from (f"{name}: run.json is missing" for name in _without_run_json(view))


def _partly(view: View) -> Iterator[str]:
    for run in view.runs:
        if run.checkpoints.is_dir():
            for file in sorted(run.checkpoints.glob("*.damaged")):
                yield f"{run.id}: checkpoints/{file.name}; the one before it was used"
    if not view.index_damage:  # the index remembers what was wrong with events
        for name, number, at in query.damage(view.home):
            yield f"{name}: {counted(number, 'line')} of events.jsonl, the first at byte {at}"


def _recipe(view: View, run: RunDir) -> str:
    """What is wrong with its recipe. Those of runs that ended are only glanced at: a thousand would take too long."""
    if run in view.unfinished:
        return "" if view.recipes[run.id] else "recipe.toml cannot be read"
    try:
        text = content(run.recipe).decode()
    except FileNotFoundError:
        return "recipe.toml is missing"
    except (OSError, ValueError):
        return "recipe.toml cannot be read"
    return "" if text.strip() and "\0" not in text else "recipe.toml is damaged"


def _without_run_json(view: View) -> list[str]:
    """Folders that hold the work of a run, but not what says which."""
    return [run.id for run in _unknown(view) if any(os.path.lexists(run.path / name) for name in EVENTS)]


def _closed(view: View) -> dict[str, OSError]:
    """Folders of which nobody can say whether they are runs, and why."""
    found = {}
    for run in _unknown(view):
        try:
            os.lstat(run.path / "run.json")
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            found[run.id] = error
    return found


def _unknown(view: View) -> list[RunDir]:
    """What else is in the folder of the runs; nothing if they cannot be listed."""
    known = {run.id for run in view.folders}
    if view.unlisted:
        return []
    try:
        with os.scandir(view.home.runs) as entries:
            names = sorted(e.name for e in entries if e.name not in known and not e.name.startswith("."))
    except OSError:
        return []
    return [view.home.run(name) for name in names]
