"""Run folders are born, queued again and deleted here.

A run whose folder stands is queued: there is no other list. So a folder appears whole, a batch of them
together, and whoever changes one first claims it (see processes.claim).
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.rundir import FINAL, RunDir, replace, sync_folder
from trainctl import __version__
from trainctl.errors import MachineError, TrainctlError, UsageError
from trainctl.home import Home
from trainctl.launch import processes

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken for something else
STAGED = ".run.json.staged"
PATIENCE = 10.0  # seconds for which an engine that wrote its exit.json may still be on its way out


def create(
    home: Home,
    plans: Sequence[Planned],
    *,
    tags: Sequence[str] = (),
    share: float | None = None,
    command: Sequence[str] = (),
    beside: Mapping[str, str] = MappingProxyType({}),
) -> list[RunDir]:
    """Make one queued run of each plan, all or none, in their order. `beside` are more files of each folder, by path.

    `share` is the part of the machine that each of them takes while it runs, in (0, 1]; None: what its threads are of
    all cores. `command` is what the user typed; default this process's own. MachineError if it cannot be written.
    """
    from trainctl.recipes.load import dump

    home.create()
    typed = shlex.join(command or ["trainctl", *sys.argv[1:]])
    made: list[RunDir] = []
    try:
        for plan in plans:
            made.append(run := _new_folder(home))
            replace(run.recipe, dump(plan.recipe))
            for name, text in beside.items():
                (run.path / name).parent.mkdir(exist_ok=True)
                replace(run.path / name, text)
            about = {
                "id": run.id,
                "name": plan.name,
                "recipe": plan.recipe_name,
                "group": plan.group,
                "pair": plan.pair,
                "seed": plan.seed,
                "command": typed,
                "created": time.time(),
                "tags": list(tags),
                "cwd": str(Path.cwd()),
                "share": share,
                "trainctl": __version__,
            }
            replace(run.path / STAGED, json.dumps(about, indent=1) + "\n")
        # A folder is a run once it holds run.json. Only renames are left, which a full disk cannot stop half-way.
        for run in made:
            (run.path / STAGED).rename(run.path / "run.json")
        sync_folder(home.runs)
    except BaseException as error:
        for run in made:
            shutil.rmtree(run.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise MachineError(f"cannot write a run folder in {home.runs}: {error.strerror or error}") from None
        raise
    return made


def _new_folder(home: Home) -> RunDir:
    while True:
        run = home.run("".join(secrets.choice(ALPHABET) for _ in range(8)))
        try:
            run.path.mkdir()
        except FileExistsError:
            continue
        return run


def requeue(run: RunDir) -> None:
    """Queue a run that ended, but not as done; the engine goes on from checkpoints/last if there is one.

    UsageError if it is done, queued or still at work.
    """
    with processes.claim(run, patience=PATIENCE if run.status() in FINAL else 0.0):
        check_requeue(run)
        run.archive_exit()
        # launch.json goes last: without it and a heartbeat the run is queued.
        (run.path / "heartbeat.json").unlink(missing_ok=True)
        (run.path / "launch.json").unlink(missing_ok=True)
        sync_folder(run.path)


def check_requeue(run: RunDir) -> None:
    """UsageError if the run cannot be queued again."""
    status = run.status()
    if status == "done":
        raise UsageError(
            f"run {run.id} is done", "train it again with `trainctl run`, or evaluate it with `trainctl eval`"
        )
    if status not in FINAL:
        raise UsageError(f"run {run.id} is {status}", f"watch it with `trainctl watch {run.id}`")


def remove(home: Home, run: RunDir) -> None:
    """Delete a run's folder. UsageError while a process works in it. A link is cut, never followed."""
    if run.path.parent != home.runs or run.id in ("", ".", ".."):
        raise UsageError(f"{run.path} is no run folder of {home.path}")
    try:
        if run.path.is_symlink():
            run.path.unlink()
        if not run.path.exists():
            return
        with processes.claim(run):
            if run.status() in ("starting", "running", "stopping"):  # by hand or on another host
                raise processes.Busy(f"run {run.id} is at work", f"stop it first: trainctl stop {run.id}")
            # Away under a hidden name first, so that nobody meets half a folder.
            doomed = home.runs / f".{run.id}.removed"
            run.path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise TrainctlError(f"cannot delete {run.path}: {error.strerror or error}") from None
