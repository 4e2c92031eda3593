"""Staying with runs until they end: used by run, resume and watch."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

from engine import events
from engine.events import METRICS
from engine.rundir import FINAL, RunDir, regular
from trainctl.cli import live, words
from trainctl.cli.common import console, emit_json, note, printable
from trainctl.errors import DONE, INTERRUPTED, MACHINE, RUN_FAILED, MachineError, TrainctlError
from trainctl.home import Home
from trainctl.launch import again, processes, queue, scheduler
from trainctl.launch.follow import Follower
from trainctl.registry.threats import Threat, threat

LOOK = 0.2  # seconds between two looks at the run folders
WIDE = 110  # columns of a terminal that has room for all metrics
CARE = 2.0  # seconds between two looks after the scheduler


class Presses:
    """Counts Ctrl-C instead of letting it interrupt whatever is being written."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Presses:
        """Take SIGINT over."""
        self._before: Any = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give SIGINT back."""
        signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def attend(home: Home, runs: Sequence[RunDir], *, presses: Presses | None = None, as_json: bool = False) -> int:
    """Show `runs` until all have ended, and say how; returns the exit code.

    With `presses` the runs belong to this command: the first Ctrl-C stops them, the second kills them. Without, Ctrl-C
    only ends the view. When the terminal closes, the view ends and the runs go on in either case.
    """
    followers, stopped = stay(home, runs, presses=presses, as_json=as_json)
    code = exit_code(followers)
    if as_json:
        emit_json({"event": "summary", "t": time.time(), "runs": [_summary_of(run) for run in followers]}, line=True)
    else:
        _report(followers)
        explain(followers)
    if stopped:
        left = " ".join(run.run.id for run in followers if run.status != "done")
        note(f"stopped; go on with: trainctl resume {left}" if left else "all runs were done already")
    return INTERRUPTED if stopped else code


def stay(
    home: Home, runs: Sequence[RunDir], *, presses: Presses | None = None, as_json: bool = False
) -> tuple[list[Follower], bool]:
    """As `attend`, without a last word: gives the runs as they ended, and True if Ctrl-C ended them."""
    followers = [Follower(run) for run in runs]
    view = live.choose(as_json)
    try:
        return followers, _until_ended(home, followers, view, presses)
    finally:
        view.close()


def _until_ended(home: Home, runs: Sequence[Follower], view: live.View, presses: Presses | None) -> bool:
    """Show the runs until they end; True if Ctrl-C ended them."""
    cared, answered, deadline = 0.0, 0, 0.0
    while True:
        view.show(runs, [(run, event) for run in runs for event in run.poll()])
        open_runs = [run for run in runs if not run.ended]
        if not open_runs:
            view.show(runs, [])
            return answered > 0
        if presses and presses.count and not answered:
            answered, deadline = 1, time.monotonic() + processes.GRACE
            note(f"stopping {len(open_runs)} run(s): they write a checkpoint first; Ctrl-C again kills them")
            _each(open_runs, again.give_up)
            waiting = [run for run in open_runs if run.status == "queued"]
            _each([*waiting, *(run for run in open_runs if run not in waiting)], processes.request_stop)
        elif presses and answered == 1 and (presses.count > 1 or time.monotonic() > deadline):
            _kill(open_runs, "" if presses.count > 1 else f" after {processes.GRACE:g} s")
            answered = 2
        elif answered == 2 and presses and presses.count > 2:
            return True
        if not answered and time.monotonic() - cared > CARE and any(_waits(run) for run in open_runs):
            try:
                scheduler.ensure(home)  # also when the one before was killed
            except MachineError as error:  # somebody else's home, which one may only watch
                if not cared and not scheduler.alive(home):
                    note(f"nobody starts what is queued: {error}")
            cared = time.monotonic()
        time.sleep(LOOK)


def _waits(run: Follower) -> bool:
    """True if a scheduler has something to do for it: to start it, or to take it up again."""
    return run.status in FINAL or (run.status == "queued" and not queue.place(run.run).held)


def _kill(runs: Sequence[Follower], when: str) -> None:
    """Kill runs and say how many processes each had."""
    counts: dict[str, int] = {}
    _each(runs, lambda run: counts.update({run.id: processes.kill(run)}))
    for run in runs:
        if count := counts.get(run.run.id):
            note(f"{run.name} killed{when}: {count} process{'' if count == 1 else 'es'}")


def _each(runs: Sequence[Follower], action: Callable[[RunDir], object]) -> None:
    for run in runs:
        try:
            action(run.run)
        except TrainctlError as error:
            note(f"{run.name}: {error}")


def exit_code(runs: Sequence[Follower]) -> int:
    """What a command that ran them exits with."""
    bad = [run for run in runs if run.status != "done"]
    if not bad:
        return DONE
    lacking = all(run.run.json("exit.json").get("code") == MACHINE for run in bad)
    return MACHINE if lacking else RUN_FAILED


def summary(run: RunDir, name: str, status: str, *, reason: str = "", metrics: Mapping[str, float]) -> dict[str, Any]:
    """What the last line of `run --json` says of one run, whether it has ended or was only queued."""
    about = run.json("run.json")
    return {
        "id": run.id,
        "name": name,
        **{key: about.get(key) for key in ("recipe", "group", "pair", "seed")},
        "status": status,
        "reason": reason,
        "metrics": dict(metrics),
    }


def queue_again(
    home: Home, runs: Sequence[RunDir], deed: Callable[[RunDir], None], *, detach: bool, as_json: bool
) -> int:
    """Queue each of `runs`, which have ended, by `deed`; stay with them to the end unless `detach`; the exit code."""
    with Presses() as presses:
        for run in runs:
            deed(run)
        scheduler.ensure(home)
        if not detach:
            return attend(home, runs, presses=presses, as_json=as_json)
    if as_json:
        emit_queued(runs)
    note(f"watch: trainctl watch {' '.join(run.id for run in runs)}")
    return DONE


def emit_queued(runs: Sequence[RunDir]) -> None:
    """The line of `--json` for runs that were queued and are not waited for."""
    queued = [summary(run, str(run.json("run.json").get("name")), "queued", metrics={}) for run in runs]
    emit_json({"event": "summary", "t": time.time(), "runs": queued}, line=True)


def _summary_of(run: Follower) -> dict[str, Any]:
    return summary(run.run, run.name, run.status, reason=run.reason(), metrics=run.progress.results())


def _threats(run: RunDir) -> dict[str, Threat]:
    """What the numbers of `Progress.results` were measured under, by metric."""
    try:
        with open(run.events, "rb", opener=regular) as file:
            evals = list(events.of_kind(file, "eval"))
    except OSError:
        return {}
    found: dict[str, dict[str, Threat]] = {}
    for event in evals:
        if events.number(event.get("value")) is not None:
            found.setdefault(str(event.get("checkpoint", "")), {})[str(event.get("metric", ""))] = threat(event)
    return found.get("best") or found.get("last") or {}


def _report(runs: Sequence[Follower]) -> None:
    """The results as a table on stdout."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from trainctl.compare.marks import mark
    from trainctl.registry.ingest import read_settings
    from trainctl.registry.readings import reading

    screen = console()
    ours = {run.run.id: bool(reading(read_settings(run.run))) for run in runs}
    found = {run.run.id: run.progress.results() for run in runs}
    columns = [name for name in METRICS if any(name in values for values in found.values())]
    if screen.width < WIDE:  # `trainctl show` and `compare` have them all
        columns = [name for name in columns if not name.startswith(("topo", "l_"))]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    heads = {name: name.replace("_", " ") for name in columns}
    for head in heads.values():
        table.add_column(head, justify="right", no_wrap=True)
    marked = mark(heads, [(found[run.run.id], _threats(run.run)) for run in runs])
    for run, marks in zip(runs, marked.marks, strict=True):
        values = found[run.run.id]
        status = Text(run.status, style=words.STYLES.get(run.status, ""))
        shown = [f"{values[name]:.4g}{marks.get(name, '')}" if name in values else "–" for name in columns]
        table.add_row(run.run.id, printable(run.name) + "†" * ours[run.run.id], status, *shown)
    screen.print(table)
    if marked.caption:
        screen.print(Text(marked.caption, style="dim"))
    for said in marked.notes:
        screen.print(Text(said))
    if any(ours.values()):
        screen.print(Text(words.OUR_READING))


def explain(runs: Sequence[Follower]) -> None:
    """Say on stderr why runs ended that are not done."""
    for run in runs:
        if run.status != "done":
            note(f"{run.name} {run.status}: {run.reason() or 'no reason was left'} (trainctl logs {run.run.id})")
