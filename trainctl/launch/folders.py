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
from typing import TYPE_CHECKING, Any

from engine.rundir import AT_WORK, FINAL, RunDir, content, replace, sync_folder
from trainctl import __version__
from trainctl.errors import RUN_FAILED, UsageError, refused
from trainctl.home import Home
from trainctl.launch import frozen, processes, queue

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that is mistaken for something else
STAGED = ".run.json.staged"
PATIENCE = 10.0  # seconds for which an engine that wrote its exit.json may still be on its way out
MOST = 10**6  # attempts of a run
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
    """Make one queued run of each plan, all or none, in their order, of the code as it is now.

    `beside` are more files of each folder, by path.

    `share` is the part of the machine that each of them takes while it runs, in (0, 1]; None: what its threads are of
    all cores. `command` is what the user typed; default this process's own. MachineError if it cannot be written.
    """
    from trainctl.recipes.load import dump

    home.create()
    code = frozen.freeze(home)
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
                "code": code,
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
            raise refused(f"cannot write a run folder in {home.runs}", error) from None
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


def requeue(run: RunDir, *, new_code: bool = False) -> None:
    """Queue a run that ended, but not as done; the engine goes on from checkpoints/last if there is one.

    It goes on with the code that it began with, with `new_code` with today's. UsageError if it is done, queued or still
    at work; MachineError if its code has gone or something cannot be written.
    """
    if "retrying" in run.json("exit.json"):
        retry(run)
        return
    with processes.claim(run, patience=PATIENCE if run.status() in FINAL else 0.0):
        check_requeue(run, new_code=new_code)
        with processes.writing(run):
            if new_code:  # before all else: whoever starts the run from here on takes the code that was asked for
                _name_code(run, frozen.freeze(_home(run)))
            go_on(run)


def go_on(run: RunDir) -> None:
    """Leave an ended run queued, to go on from its checkpoint; the caller has claimed it.

    Every step may be taken twice. exit.json goes last, and launch.json before it: up to then the run is as it was, and
    from then on it is queued.
    """
    processes.contained(run)
    queue.release(run)
    (run.path / "heartbeat.json").unlink(missing_ok=True)
    (run.path / "launch.json").unlink(missing_ok=True)
    run.archive_exit()
    sync_folder(run.path)


def check_requeue(run: RunDir, *, new_code: bool = False) -> None:
    """UsageError if the run cannot be queued again, MachineError if its code has gone and it is to go on with that."""
    if run.status() == "done":
        hint = f"`trainctl retry {run.id}` begins it anew, `trainctl eval` evaluates it"
        raise UsageError(f"run {run.id} is done", hint)
    check_retry(run)
    code = run.json("run.json").get("code")
    if code is not None and not new_code:
        frozen.check(_home(run), code)


def retry(run: RunDir) -> None:
    """Queue a run that ended, also as done, to begin anew with today's code; what it has is kept in attempts/NNN/.

    UsageError if it is queued or still at work. Killed at any moment, this leaves a run that was not touched or one
    that counts as killed, with every file in one of both places; the next `retry` or `requeue` completes it.
    """
    with processes.claim(run, patience=PATIENCE if run.status() in FINAL else 0.0):
        check_retry(run)
        begin_anew(run, code=frozen.freeze(_home(run)))


def check_retry(run: RunDir) -> None:
    """UsageError if the run has not ended."""
    status = run.status()
    if status not in FINAL:
        raise UsageError(f"run {run.id} is {status}", f"watch it with `trainctl watch {run.id}`")


def begin_anew(run: RunDir, recipe: str = "", *, code: str = "") -> None:
    """Leave an ended run queued, to begin from epoch 0; the caller has claimed it.

    `recipe` is its recipe.toml from then on and `code` the name of its code, "" for those it has; the old recipe is
    kept too. MachineError if something cannot be moved.
    """
    processes.contained(run)
    queue.release(run)
    try:
        _put_away(run, recipe, code)
    except OSError as error:
        told = refused(f"cannot put away what is in {run.path}", error)
        told.hint = f"nothing is lost, and `trainctl retry {run.id}` completes it; {told.hint}".rstrip("; ")
        raise told from None


def _put_away(run: RunDir, recipe: str, code: str) -> None:
    """Move what an attempt left behind to attempts/NNN/, which leaves a queued run.

    The first step replaces exit.json, so that nothing from there on is taken for done, and the last one removes it;
    in between every step may be taken twice.
    """
    ending = run.path / "exit.json"
    mark = _cut_short(run)
    if not mark:
        before = content(ending).decode(errors="replace") if ending.exists() else ""
        reason = f"a retry was cut short; `trainctl retry {run.id}` completes it"
        mark = {"status": "killed", "code": RUN_FAILED, "signal": None, "reason": reason, "t": time.time()}
        mark |= {"retrying": run.next_attempt(), "before": before, "recipe": recipe}
        run.write_json("exit.json", mark)
    folder = run.path / "attempts" / f"{mark['retrying']:03d}"
    folder.mkdir(parents=True, exist_ok=True)
    if folder.is_symlink():
        raise UsageError(f"{folder} is a link", "have a look at where this run comes from")
    if mark["before"]:
        replace(folder / "exit.json", mark["before"])
    for name in LEFT_BEHIND:
        if (run.path / name).exists() and not (folder / name).exists():
            (run.path / name).rename(folder / name)
    if mark.get("recipe"):
        if not (folder / "recipe.toml").exists():
            replace(folder / "recipe.toml", content(run.recipe))
        replace(run.recipe, mark["recipe"])
    _copy_log(run, folder)
    if code:
        _name_code(run, code)
    for changed in (folder, folder.parent, run.path):
        sync_folder(changed)
    # Cut, not moved, because it carries the lock; and only now that its copy is safe.
    os.truncate(run.log, 0)
    ending.unlink()
    sync_folder(run.path)


def _cut_short(run: RunDir) -> dict[str, Any]:
    """exit.json if it is what a retry leaves that was cut short, else {}."""
    mark = run.json("exit.json")
    number, texts = mark.get("retrying"), (mark.get("before"), mark.get("recipe", ""))
    whole = isinstance(number, int) and 0 < number < MOST and all(isinstance(text, str) for text in texts)
    return mark if whole else {}


def _name_code(run: RunDir, code: str) -> None:
    """Have the run started with the frozen code `code` from now on."""
    about = run.json("run.json")
    if about and about.get("code") != code:
        run.write_json("run.json", {**about, "code": code})


def _home(run: RunDir) -> Home:
    return Home(run.path.parents[1])


def _copy_log(run: RunDir, folder: Path) -> None:
    if not run.log.stat().st_size:  # cut already, or it has printed nothing
        return
    unfinished = folder / ".stdout.log.tmp"
    unfinished.unlink(missing_ok=True)  # a stranger's may be a link
    shutil.copyfile(run.log, unfinished)
    with unfinished.open("rb") as file:
        os.fsync(file.fileno())
    unfinished.rename(folder / "stdout.log")


def remove(home: Home, run: RunDir) -> None:
    """Delete a run's folder. UsageError while a process works in it. A link is cut, never followed."""
    if run.path.parent != home.runs or run.id in ("", ".", ".."):
        raise UsageError(f"{run.path} is no run folder of {home.path}")
    doomed = home.runs / f".{run.id}.removed"
    try:
        if run.path.is_symlink():
            run.path.unlink()
        if not run.path.exists():
            return
        if run.log.is_symlink() or run.log.is_fifo():  # it is no run of ours, and nobody can hold the lock
            run.log.unlink()
        with processes.claim(run):
            if run.status() in AT_WORK:  # by hand or on another host
                raise processes.Busy(f"run {run.id} is at work", f"stop it first: trainctl stop {run.id}")
            # Away under a hidden name first, so that nobody meets half a folder.
            run.path.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise refused(f"cannot delete {error.filename or run.path}", error) from None
