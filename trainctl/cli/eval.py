"""`trainctl eval`: evaluate a checkpoint again, with other attacks or after it was stopped."""

from __future__ import annotations

import signal
import subprocess
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainctl.cli.common import HomeOption, JsonOption, RunsArgument, emit_json, note, printable
from trainctl.errors import INTERRUPTED, MACHINE, USAGE, MachineError, TrainctlError, UsageError
from trainctl.home import find_home

if TYPE_CHECKING:
    from engine.rundir import RunDir
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
        str, typer.Option(metavar="pgd20,aa", help="Attacks, with commas.", show_default="the recipe's")
    ] = "",
    checkpoint: Annotated[Which, typer.Option(help="Which checkpoint.")] = Which.best,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Evaluate a checkpoint again. The numbers are kept with the run; its status does not change."""
    from trainctl.registry.select import some

    place = find_home(home)
    rows = some(place, runs)
    given = _check_attacks(attacks)
    chosen = [place.run(row.id) for row in rows]
    for run in chosen:
        _check_run(run, checkpoint)
    for run, row in zip(chosen, rows, strict=True):
        _evaluate(run, row.name, given or _own_attacks(run), checkpoint, as_json)


def _check_attacks(text: str) -> list[str]:
    from typing import get_args

    from engine.sections import Attack20

    known = get_args(Attack20)
    names = [part.strip() for part in text.split(",") if part.strip()]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise UsageError(f"--attacks: there is no attack {wrong[0]!r}", f"known: {', '.join(known)}")
    return names


def _check_run(run: RunDir, checkpoint: Which) -> None:
    if run.status() in ("starting", "running", "stopping"):
        raise UsageError(f"run {run.id} is at work", "it is evaluated when it has trained; or stop it first")
    for which in ("best", "last") if checkpoint is Which.both else (checkpoint.value,):
        if not run.checkpoint(which).exists():
            raise UsageError(
                f"run {run.id} has no checkpoint {which!r}: {run.checkpoint(which)}", "train it further first"
            )


def _settings(run: RunDir) -> dict[str, Any]:
    import tomli

    try:
        return tomli.loads(run.recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{run.recipe}: cannot be read: {error}") from None


def _own_attacks(run: RunDir) -> list[str]:
    attacks = _settings(run).get("eval", {}).get("attacks", [])
    return [str(name) for name in attacks]


def _evaluate(run: RunDir, name: str, attacks: list[str], checkpoint: Which, as_json: bool) -> None:
    from trainctl.launch import processes
    from trainctl.launch.follow import Tail

    tail = Tail(run.events)
    tail.read()  # what is known already
    arguments = ["--evaluate", ",".join(attacks), "--checkpoint", checkpoint.value]
    threads = _settings(run).get("run", {}).get("threads") or 0
    with processes.claim(run, patience=3.0) as log:  # one that was just stopped is about to let go
        printed = run.log.stat().st_size
        note(f"{name}: evaluating {checkpoint.value} with {', '.join(attacks) or 'no attack'}")
        child = processes.spawn(run, log, arguments=arguments, environment=processes.thread_limits(threads))
    try:
        code = _show(child, tail, run, name, as_json)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGTERM)
        child.wait()
        raise
    if code == 130:
        raise typer.Exit(INTERRUPTED)
    if code:
        said = run.log.read_bytes()[printed:].decode("utf-8", "replace").strip()
        said = said.rpartition("error: ")[2]
        kind = {USAGE: UsageError, MACHINE: MachineError}.get(code, TrainctlError)
        message, _, hint = said.rpartition("\n") if code in (USAGE, MACHINE) else ("", "", "")
        last = said.splitlines()[-1] if said else f"the engine ended with code {code}"
        raise kind(f"{name}: {message or last}", hint or f"trainctl logs {run.id}")


def _show(child: subprocess.Popen[bytes], tail: Tail, run: RunDir, name: str, as_json: bool) -> int:
    """Print each evaluation as it comes; returns the process's exit code."""
    while True:
        code = child.poll()
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
        if code is not None:
            return code
        time.sleep(LOOK)


def _line(event: dict[str, Any]) -> str:
    """`best  pgd20 53.10  linf, ε 0.25, step 0.025, 20 steps, uniform start, 360 of 360 test images, …`"""
    from trainctl.registry import threats

    value = event.get("value")
    shown = f"{value:.2f}" if isinstance(value, float) else str(value)
    return f"{event.get('checkpoint')}  {event.get('metric')} {shown}  {threats.words(event)}"
