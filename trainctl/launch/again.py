"""Automatic retries: which ended runs the queue takes up again by itself, as their recipe's [run] allows.

A run that was lost or pre-empted goes on from its checkpoint. One that ran out of memory begins anew with half the
micro-batch, if `shrink_on_oom` allows it. Never one that failed, diverged, was killed or had no time left.

What has been done is read from the folder: an exit.json that was put away in attempts/ with `"automatic": true` is
an automatic retry, and `retries` is how many there may be. The mark is written before anything else is touched, so
that whoever meets a marked exit.json completes what a scheduler began before it was killed, and nothing is counted
twice. `"automatic": false` says that it was given up.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.rundir import RunDir, content
from trainctl.errors import RUN_FAILED, TrainctlError
from trainctl.launch import folders, processes

SMALLEST = 3  # images of a micro-batch: the engine takes no smaller parts


def due(run: RunDir) -> bool:
    """True if the queue is to take up `run`, which has ended, again or to give it up."""
    ending = run.json("exit.json")
    if "retrying" in ending:
        return _before(ending).get("automatic") is True
    status = run.status()
    if status not in ("lost", "preempted", "oom") or ending.get("automatic") is False:
        return False
    if ending.get("automatic") is True:
        return True
    settings = _settings(run).get("run")
    if not isinstance(settings, dict) or (status == "oom" and settings.get("shrink_on_oom") is not True):
        return False
    if status == "lost" and not processes.is_local(run):
        return False  # nobody can be sure that its process is dead
    retries = settings.get("retries")
    return isinstance(retries, int) and taken(run) < retries


def taken(run: RunDir) -> int:
    """How many automatic retries `run` has had."""
    archived = [*run.path.glob("attempts/*-exit.json"), *run.path.glob("attempts/*/exit.json")]
    return sum(_read(path).get("automatic") is True for path in archived)


def take_up(run: RunDir) -> str:
    """Queue `run` again if that is due; what was done, in words, or "" for nothing.

    Busy if somebody works in it; TrainctlError or OSError if its folder cannot be written.
    """
    with processes.claim(run):  # with the lock nobody can still be about to write how it ended
        if not due(run):
            return ""
        ending = run.json("exit.json")
        if "retrying" in ending:
            folders.begin_anew(run)
            return "queued from epoch 0: the retry that was cut short is complete"
        status, number = run.status(), taken(run) + 1
        if status != "oom":
            _mark(run, ending, automatic=True)
            folders.go_on(run)
            return f"{status}, queued again from its checkpoint: automatic retry {number}"
        try:
            size, recipe = halved(_settings(run))
        except TrainctlError as error:
            _mark(run, {**ending, "reason": f"{ending.get('reason', '')}; not tried again: {error}"}, automatic=False)
            return f"out of memory, and not tried again: {error}"
        _mark(run, ending, automatic=True)
        folders.begin_anew(run, recipe)
        return f"out of memory, queued from epoch 0 with a micro-batch of {size}: automatic retry {number}"


def give_up(run: RunDir) -> None:
    """Take up `run` no more, if that is due: somebody wants it to stop. Errors as of `take_up`."""
    if due(run):
        with processes.claim(run):
            if due(run) and "retrying" not in run.json("exit.json"):
                _mark(run, run.json("exit.json"), automatic=False)


def spare(run: RunDir) -> bool:
    """True if `run`, which has ended, was to be taken up again, and is not any more. Errors as of `take_up`."""
    if not due(run):
        return False
    with processes.writing(run):
        give_up(run)
        take_up(run)  # nothing, but for a retry that was cut short: that is completed, and then cancelled
    return True


def halved(settings: Mapping[str, Any]) -> tuple[int, str]:
    """Half the micro-batch of a recipe, and the whole recipe with it as TOML; TrainctlError if that is too small or
    the recipe does not allow it.
    """
    from engine.recipe import InvalidRecipe, check
    from trainctl.recipes.load import dump

    try:
        recipe = check(dict(settings))
        size = (recipe.run.micro_batch or recipe.optim.batch_size) // 2
        if size < SMALLEST:
            raise TrainctlError(f"half of the micro-batch would be {size}, and it needs {SMALLEST}")
        changed = check({**settings, "run": {**settings["run"], "micro_batch": size}})
    except InvalidRecipe as error:
        raise TrainctlError(f"its recipe does not allow a smaller micro-batch: {error}") from None
    return size, dump(changed)


def _mark(run: RunDir, ending: Mapping[str, Any], *, automatic: bool) -> None:
    lost = {
        "status": "lost", "code": RUN_FAILED, "signal": None, "reason": "its process vanished without a word",
        "t": time.time(),
    }  # fmt: skip
    run.write_json("exit.json", {**lost, **ending, "automatic": automatic})


def _settings(run: RunDir) -> dict[str, Any]:
    """recipe.toml; {} if it cannot be read."""
    try:
        return run.table()
    except (OSError, ValueError):
        return {}


def _before(ending: Mapping[str, Any]) -> dict[str, Any]:
    """The exit.json that a retry which was cut short has replaced."""
    return _object(str(ending.get("before")))


def _read(path: Path) -> dict[str, Any]:
    try:
        return _object(content(path).decode())
    except (OSError, ValueError):
        return {}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
