"""`trainctl queue`: what waits, in which order and for what; and how to change that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainctl.cli.common import HomeOption, JsonOption, console, emit_json, note, printable
from trainctl.errors import UsageError
from trainctl.home import Home, find_home

if TYPE_CHECKING:
    from engine.rundir import RunDir

queue = typer.Typer(
    help="What waits, and in which order: list, pause, continue, move, priority.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
SELECTORS = "An id, its beginning, a name, @last, tag:x, recipe:x, group:x or a filter."
SomeRuns = Annotated[list[str], typer.Argument(metavar="RUN…", show_default=False, help=SELECTORS)]
AnyRuns = Annotated[
    list[str] | None, typer.Argument(metavar="[RUN]…", show_default=False, help="Queued runs; none: the whole queue.")
]


@queue.callback(invoke_without_command=True)
def queue_list(context: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the runs that wait, in the order in which they start, and what each waits for."""
    if context.invoked_subcommand is not None:
        if as_json or home is not None:
            hint = f"trainctl queue {context.invoked_subcommand} … --home DIR"
            raise UsageError("--home stands behind the command, and --json before none", hint)
        return
    from trainctl.launch import queue as order

    place = find_home(home)
    rows, paused = _rows(place), order.paused(place)
    if as_json:
        emit_json({"paused": paused, "runs": rows})
        return
    if rows:
        _print(rows)
    else:
        note("nothing is queued")
    if paused:
        note("the queue is paused; go on with: trainctl queue continue")


@queue.command()
def pause(runs: AnyRuns = None, home: HomeOption = None) -> None:
    """Start nothing new, or none of RUN…; runs at work go on."""
    from trainctl.launch import queue as order

    place = find_home(home)
    if not runs:
        order.pause(place)
        note("the queue is paused: runs at work go on, nothing new is started")
        return
    chosen = _chosen(place, runs)
    order.hold(chosen, True)
    _changed(place, f"{len(chosen)} run(s) are held; the others pass them")


@queue.command(name="continue")
def go_on(runs: AnyRuns = None, home: HomeOption = None) -> None:
    """Let the queue go on, or RUN… that are held."""
    from trainctl.launch import queue as order

    place = find_home(home)
    if not runs:
        order.unpause(place)
        held = sum(order.place(run).held for run in order.queued(place))
        note("the queue goes on" + (f"; {held} run(s) are held still" if held else ""))
        return
    chosen = _chosen(place, runs)
    order.hold(chosen, False)
    _changed(place, f"{len(chosen)} run(s) wait for their turn again")


@queue.command()
def move(
    runs: SomeRuns,
    first: Annotated[bool, typer.Option("--first", help="Before all others.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Behind all others.")] = False,
    up: Annotated[bool, typer.Option("--up", help="One place forward.")] = False,
    down: Annotated[bool, typer.Option("--down", help="One place back.")] = False,
    home: HomeOption = None,
) -> None:
    """Change the order: RUN… stay in their own order, and take the priority of a run that they pass."""
    from trainctl.launch import queue as order

    named = [name for name, on in zip(("first", "last", "up", "down"), (first, last, up, down), strict=True) if on]
    if len(named) != 1:
        raise UsageError("where to?", "one of --first, --last, --up and --down")
    place = find_home(home)
    chosen = order.order(_chosen(place, runs))
    order.check(chosen)  # all, before the first is moved
    for run in _movable(order.queued(place), chosen, named[0]):
        order.move(place, run, named[0])
    numbers = {run.id: number for number, run in enumerate(order.queued(place), 1)}
    places = ", ".join(str(numbers.get(run.id, "started")) for run in chosen)
    _changed(place, f"now at place {places} of {len(numbers)}")


@queue.command(context_settings={"ignore_unknown_options": True})  # or -1 would be taken for an option
def priority(
    number: Annotated[int, typer.Argument(metavar="N", help="Larger ones start first; the usual one is 0.")],
    runs: SomeRuns,
    home: HomeOption = None,
) -> None:
    """Give RUN… a priority; among equals, who came first starts first."""
    from trainctl.launch import queue as order

    place = find_home(home)
    chosen = _chosen(place, runs)
    order.prioritize(chosen, number)
    _changed(place, f"{len(chosen)} run(s) have the priority {number}")


def _movable(queue: list[RunDir], chosen: list[RunDir], to: str) -> list[RunDir]:
    """`chosen` in the sequence in which to move them, without those that stand at that end already."""
    if to in ("first", "down"):
        chosen = chosen[::-1]
    if to == "down":
        queue = queue[::-1]
    stay = 0
    while to in ("up", "down") and queue[stay : stay + 1] == chosen[stay : stay + 1] != []:
        stay += 1
    return chosen[stay:]


def _chosen(home: Home, runs: list[str]) -> list[RunDir]:
    from trainctl.registry.select import some

    return [home.run(row.id) for row in some(home, runs)]


def _changed(home: Home, said: str) -> None:
    from trainctl.launch import scheduler

    scheduler.ensure(home)
    note(said)


def _rows(home: Home) -> list[dict[str, Any]]:
    """The queue as `--json` prints it."""
    from engine.rundir import AT_WORK
    from trainctl.launch import processes, scheduler, slots, waiting
    from trainctl.launch import queue as order

    every = home.run_dirs()
    runs = order.queued(home)
    if not runs:
        return []
    gpus, places = slots.gpus(), {run.id: order.place(run) for run in runs}
    at_work = [run for run in every if run.status() in AT_WORK and processes.is_local(run)]
    held = [scheduler.holding(run, gpus) for run in at_work]
    names = {run.id: str(run.json("run.json").get("name") or run.id) for run in (*at_work, *runs)}
    verdicts = waiting.explain(
        [(run.id, slots.need(run, gpus)) for run in runs], held, gpus,
        resting=[name for name, place in places.items() if place.held], paused=order.paused(home),
    )  # fmt: skip
    served = scheduler.alive(home)
    return [
        {
            "number": number, "id": run.id, "name": names[run.id], "priority": places[run.id].priority,
            "held": places[run.id].held, "waits_for": waiting.UNSERVED if verdict.gpu is not None and not served
            else verdict.words(names, slots.cores()),
        }
        for number, (run, verdict) in enumerate(zip(runs, verdicts, strict=True), 1)
    ]  # fmt: skip


def _print(rows: list[dict[str, Any]]) -> None:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("id", no_wrap=True)
    table.add_column("name", overflow="fold", ratio=1)
    table.add_column("priority", justify="right", no_wrap=True)
    table.add_column("waits for", overflow="fold", ratio=1)
    for row in rows:
        cells = (str(row["number"]), row["id"], printable(row["name"]), str(row["priority"]))
        table.add_row(*cells, printable(row["waits_for"]), style="dim" if row["held"] else "")
    console().print(table)
