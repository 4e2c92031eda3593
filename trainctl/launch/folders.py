"""Run folders are born, queued again, begun anew and deleted here.

A run whose folder stands is queued: there is no other list. So a folder appears whole, a batch of them
together, and whoever changes one first claims it (see processes.claim).
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from engine.rundir import AT_WORK, FINAL, RunDir, replace, sync_folder
from trainctl import __version__
from trainctl.errors import RUN_FAILED, MachineError, TrainctlError, UsageError
from trainctl.home import Home
from trainctl.launch import processes

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken for something else
STAGED = ".run.json.staged"
PATIENCE = 10.0  # seconds for which an engine that wrote its exit.json may still be on its way out
# What an attempt leaves behind, in the order in which `retry` puts it away. The events go before the checkpoints: an
# engine that found events without a checkpoint would cut them off.
LEFT_BEHIND = ("events.jsonl", "checkpoints", "eval", "env.json", "heartbeat.json", "launch.json")


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
    if "retrying" in run.json("exit.json"):
        retry(run)
        return
    with processes.claim(run, patience=PATIENCE if run.status() in FINAL else 0.0):
        check_requeue(run)
        run.archive_exit()
        # launch.json goes last: without it and a heartbeat the run is queued.
        (run.path / "heartbeat.json").unlink(missing_ok=True)
        (run.path / "launch.json").unlink(missing_ok=True)
        sync_folder(run.path)


def check_requeue(run: RunDir) -> None:
    """UsageError if the run cannot be queued again."""
    if run.status() == "done":
        hint = f"`trainctl retry {run.id}` begins it anew, `trainctl eval` evaluates it"
        raise UsageError(f"run {run.id} is done", hint)
    check_retry(run)


def retry(run: RunDir) -> None:
    """Queue a run that ended, also as done, to begin anew; what it has is kept in attempts/NNN/.

    UsageError if it is queued or still at work. Killed at any moment, this leaves a run that was not touched or one
    that counts as killed, with every file in one of both places; the next `retry` or `requeue` completes it.
    """
    with processes.claim(run, patience=PATIENCE if run.status() in FINAL else 0.0):
        check_retry(run)
        try:
            _put_away(run)
        except OSError as error:
            raise MachineError(
                f"cannot put away what is in {run.path}: {error.strerror or error}",
                f"nothing is lost; once that is mended, `trainctl retry {run.id}` completes it",
            ) from None


def check_retry(run: RunDir) -> None:
    """UsageError if the run has not ended."""
    status = run.status()
    if status not in FINAL:
        raise UsageError(f"run {run.id} is {status}", f"watch it with `trainctl watch {run.id}`")


def _put_away(run: RunDir) -> None:
    """Move what an attempt left behind to attempts/NNN/, which leaves a queued run. The caller has claimed it.

    The first step replaces exit.json, so that nothing from there on is taken for done, and the last one removes it;
    in between every step may be taken twice.
    """
    ending = run.path / "exit.json"
    mark = run.json("exit.json")
    if "retrying" not in mark:
        before = ending.read_text(encoding="utf-8", errors="replace") if ending.exists() else ""
        reason = f"a retry was cut short; `trainctl retry {run.id}` completes it"
        mark = {"status": "killed", "code": RUN_FAILED, "signal": None, "reason": reason, "t": time.time()}
        mark |= {"retrying": run.next_attempt(), "before": before}
        run.write_json("exit.json", mark)
    folder = run.path / "attempts" / f"{mark['retrying']:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    if mark["before"]:
        replace(folder / "exit.json", mark["before"])
    for name in LEFT_BEHIND:
        if (run.path / name).exists() and not (folder / name).exists():
            (run.path / name).rename(folder / name)
    _copy_log(run, folder)
    for changed in (folder, folder.parent, run.path):
        sync_folder(changed)
    # Cut, not moved, because it carries the lock; and only now that its copy is safe.
    os.truncate(run.log, 0)
    ending.unlink()
    sync_folder(run.path)


def _copy_log(run: RunDir, folder: Path) -> None:
    if not run.log.stat().st_size:  # cut already, or it has printed nothing
        return
    unfinished = folder / ".stdout.log.tmp"
    shutil.copyfile(run.log, unfinished)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(folder / "stdout.log")


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
            if run.status() in AT_WORK:  # by hand or on another host
                raise processes.Busy(f"run {run.id} is at work", f"stop it first: trainctl stop {run.id}")
            # Away under a hidden name first, so that nobody meets half a folder.
            doomed = home.runs / f".{run.id}.removed"
            run.path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise TrainctlError(f"cannot delete {run.path}: {error.strerror or error}") from None
