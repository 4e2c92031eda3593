"""`trainctl eval`: evaluate a checkpoint again, with other attacks or after it was stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.rundir import AT_WORK, RunDir
from trainctl.cli.common import HomeOption, JsonOption, RunsArgument, emit_json, note, printable
from trainctl.errors import INTERRUPTED, MACHINE, USAGE, MachineError, TrainctlError, UsageError
from trainctl.home import find_home

if TYPE_CHECKING:
    from engine.recipe import Recipe
    from trainctl.launch.follow import Tail

LOOK = 0.2


class Which(StrEnum):
    """The checkpoints of a run."""

    best = "best"
    last = "last"
    both = "both"


def evaluate(
    runs: RunsArgument,
    attacks: Annotated[
        str | None, typer.Option(metavar="pgd20,aa", help="Attacks, with commas.", show_default="the recipe's")
    ] = None,
    checkpoint: Annotated[Which, typer.Option(help="Which checkpoint.")] = Which.best,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Evaluate a checkpoint again. The numbers are kept with the run; its status does not change."""
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    given = None if attacks is None else _check_attacks(attacks)
    chosen = [place.run(row.id) for row in rows]
    for run in chosen:
        check_run(run, ("best", "last") if checkpoint is Which.both else (checkpoint.value,))
    for run, row in zip(chosen, rows, strict=True):
        _evaluate(run, row.name, _own_attacks(run) if given is None else given, checkpoint, as_json)


def _check_attacks(text: str) -> list[str]:
    from typing import get_args

    from engine.sections import Attack20

    known = get_args(Attack20)
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise UsageError("--attacks names none", f"known: {', '.join(known)}; without it those of the recipe are used")
    wrong = [name for name in names if name not in known]
    if wrong:
        raise UsageError(f"--attacks: there is no attack {wrong[0]!r}", f"known: {', '.join(known)}")
    return names


def check_run(run: RunDir, checkpoints: Sequence[str]) -> None:
    """UsageError if `run` is at work, or lacks one of `checkpoints`."""
    if run.status() in AT_WORK:
        raise UsageError(f"run {run.id} is at work", "wait until it has trained, or stop it first")
    for which in checkpoints:
        if not run.checkpoint(which).exists():
            raise UsageError(
                f"run {run.id} has no checkpoint {which!r}: {run.checkpoint(which)}", "train it further first"
            )


def _settings(run: RunDir) -> Recipe:
    from engine.recipe import check

    try:
        return check(run.table())
    except (OSError, ValueError) as error:
        raise UsageError(f"{run.recipe}: cannot be read: {error}") from None


def _own_attacks(run: RunDir) -> list[str]:
    return list(_settings(run).eval.attacks)


def _evaluate(run: RunDir, name: str, attacks: list[str], checkpoint: Which, as_json: bool) -> None:
    from trainctl.launch.follow import Tail

    tail = Tail(run.events)
    tail.read()  # what is known already
    doing = f"evaluating {checkpoint.value} with {', '.join(attacks) or 'no attack'}"
    arguments = ["--evaluate", ",".join(attacks), "--checkpoint", checkpoint.value]
    work_on(run, name, doing, arguments, lambda: _show(tail, run, name, as_json))


def work_on(
    run: RunDir, name: str, doing: str, arguments: Sequence[str], look: Callable[[], None] = lambda: None
) -> None:
    """Have the engine work in the folder of a run that is not at work, to its end, with `look` called meanwhile.

    What it is `doing` is said on stderr. If it fails an error has its words; if it is interrupted, typer.Exit.
    """
    from trainctl.launch import processes

    threads = _settings(run).run.threads
    with processes.claim(run, patience=3.0) as log:  # one that was just stopped is about to let go
        processes.contained(run)
        printed = run.log.stat().st_size
        note(f"{name}: {doing}")
        child = processes.spawn(run, log, arguments=arguments, environment=processes.thread_limits(threads))
    try:
        while (code := child.poll()) is None:
            look()
            time.sleep(LOOK)
        look()
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code == 130:
        raise typer.Exit(INTERRUPTED)
    if code:
        said = run.log.read_bytes()[printed:].decode("utf-8", "replace").strip()
        _, told, said = said.rpartition("error: ")
        kind = {USAGE: UsageError, MACHINE: MachineError}.get(code, TrainctlError)
        message, _, hint = said.rpartition("\n") if told else ("", "", "")
        last = said.splitlines()[-1] if said else f"the engine ended with code {code}"
        raise kind(f"{name}: {message or last}", hint or f"trainctl logs {run.id}")


def _show(tail: Tail, run: RunDir, name: str, as_json: bool) -> None:
    """Print each evaluation that has come since."""
    _, events = tail.read()
    for event in events:
        if event["event"] == "warning":
            note(f"{name}: {event.get('message')}")
        if event["event"] != "eval":
            continue
        if as_json:
            emit_json({"run": run.id, **event}, line=True)
        else:
            print(printable(f"{name}  {_line(event)}"), flush=True)


def _line(event: dict[str, Any]) -> str:
    """`best  pgd20 53.10  linf, ε 0.25, step 0.025, 20 steps, uniform start, 360 of 360 test images, …`"""
    from trainctl.registry import threats

    value = event.get("value")
    shown = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{event.get('checkpoint')}  {event.get('metric')} {shown}  {threats.words(event)}"
