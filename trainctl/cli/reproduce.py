"""`trainctl reproduce`: a table of the TRAIN paper, from the runs it lacks to the numbers beside the printed ones."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trainctl.cli.common import HomeOption, JsonOption, console, emit_json, note
from trainctl.errors import INTERRUPTED, UsageError
from trainctl.home import Home, find_home

if TYPE_CHECKING:
    from engine.rundir import RunDir
    from trainctl.recipes.plan import Planned
    from trainctl.registry.query import RunRow
    from trainctl.reproduce.plan import Key, TablePlan
    from trainctl.reproduce.result import Outcome, Result

UNKNOWN = (
    "an unknown time: nothing like it has run here (on the paper's RTX 3090 an epoch took 821 s for AT and 1079 s for "
    "TRADES)"
)


def reproduce(
    table: Annotated[int, typer.Argument(min=1, max=12, help="Number of the table.")],
    scale: Annotated[
        Literal["full", "small", "tiny"],
        typer.Option(help="The paper's setting; smaller networks and fewer epochs; or digits, in minutes on a CPU."),
    ] = "full",
    seeds: Annotated[str | None, typer.Option(metavar="0-2", help="Seeds.", show_default="1; tiny: 0-2")] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a recipe key of all rows; repeatable.", show_default=False
        ),
    ] = [],  # noqa: B006
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and start nothing.")] = False,
    run: Annotated[bool, typer.Option("--run/--no-run", help="Start what is missing, or only print the table.")] = True,
    form: Annotated[
        Literal["table", "json", "csv", "markdown"], typer.Option("--format", "-f", help="How it is printed.")
    ] = "table",
    checkpoint: Annotated[Literal["best", "last"], typer.Option("--checkpoint", help="Whose numbers.")] = "best",
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Runs at a time; they share the cores.", show_default=False),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Reproduce a table of the TRAIN paper: run what this home lacks of it, and print it beside the published numbers.

    What is done already is not run again, whoever started it; what was stopped goes on. Ctrl-C stops the runs with a
    checkpoint, and the same command goes on.
    """
    from trainctl.recipes.plan import parse_seeds
    from trainctl.reproduce import estimate, result
    from trainctl.reproduce.plan import plan_table, standing
    from trainctl.reproduce.rows import TIMING
    from trainctl.reproduce.scales import SEEDS

    place = find_home(home)
    form = "json" if as_json else form
    if dry_run and form not in ("table", "json"):
        raise UsageError(f"--format {form} is for results, and --dry-run has none", "leave it out, or take json")
    if table == TIMING and seeds and len(parse_seeds(seeds)) > 1:
        raise UsageError("Table 4 is one measurement of all its rows", "give one seed")
    planned = plan_table(table, scale, seeds or SEEDS[scale], settings)
    have = standing(place, planned.runs())
    seconds = estimate.seconds(place, planned, have)
    if dry_run:
        _show_plan(result.collect(place, planned, have, checkpoint), seconds, form)
        return
    code = 0
    if run and _open(planned, have):
        note(_extent(planned, have, seconds))
        if scale != "tiny" and not yes and seconds != 0 and sys.stdin.isatty():  # 0: all that is left has diverged
            typer.confirm("start?", default=False, abort=True, err=True)
        code = _run(place, planned, have, jobs)
        have = standing(place, planned.runs())
    if code != INTERRUPTED:
        _print(place, result.collect(place, planned, have, checkpoint), form)
    raise typer.Exit(code)


def _open(plan: TablePlan, have: Mapping[Key, RunRow]) -> list[Planned]:
    """The runs that are not done."""
    from trainctl.reproduce.plan import key

    return [run for run in plan.runs() if (found := have.get(key(run))) is None or found.status != "done"]


def _run(home: Home, plan: TablePlan, have: Mapping[Key, RunRow], jobs: int | None) -> int:
    """Make, resume and join the runs that are not done, and stay with them; returns the exit code."""
    from trainctl.cli.attend import Presses, exit_code, explain, stay
    from trainctl.launch import folders, scheduler, slots
    from trainctl.reproduce.plan import RESUMED, key

    missing = [run for run in _open(plan, have) if key(run) not in have]
    there = [row for run in _open(plan, have) if (row := have.get(key(run))) is not None]
    made: list[RunDir] = []
    settled, share = slots.share_out(missing, jobs) if missing else ([], None)
    with Presses() as presses:  # from here on a Ctrl-C must find the runs in a state it can stop
        for row in there:
            if row.status in RESUMED:
                folders.requeue(home.run(row.id))
        made = folders.create(home, settled, share=share, beside=plan.beside)
        scheduler.ensure(home)
        runs, stopped = stay(home, [*(home.run(row.id) for row in there), *made], presses=presses)
    explain(runs)
    if stopped:
        note("stopped; the same command goes on")
        return INTERRUPTED
    return exit_code(runs)


def _extent(plan: TablePlan, have: Mapping[Key, RunRow], seconds: float | None) -> str:
    """`6 rows, 24 cells, 18 runs (4 done), about 8:20`"""
    from trainctl.cli.words import duration

    total = len(plan.runs())
    done = total - len(_open(plan, have))
    cells = sum(len(line.row.published) for line in plan.lines)
    unknown = "some minutes" if plan.beside else UNKNOWN
    time = unknown if seconds is None else f"about {duration(seconds)}" if seconds else "nothing left to run"
    return f"{len(plan.lines)} rows, {cells} cells, {total} run{'s' * (total != 1)} ({done} done), {time}"


def _show_plan(found: Result, seconds: float | None, form: str) -> None:
    """What would be run, without running it."""
    from engine.recipe import needs_standard
    from trainctl.reproduce.plan import key
    from trainctl.reproduce.render import plan_json

    if form == "json":
        emit_json(plan_json(found, seconds))
        return
    print(found.title)
    if found.notice:
        print(found.notice)
    for outcome in found.outcomes:
        line = outcome.line
        settings = "".join(f" --set {shlex.quote(text)}" for text in line.overrides)
        print(f"\n{line.row.label}\n  {line.recipe}{settings}")
        recipe = line.resolved
        evaluated = ["natural", *recipe.eval.attacks, *["topology scores"] * recipe.eval.topology]
        evaluated += ["l_tp"] * needs_standard(recipe)
        print(f"  {_states(outcome)}" + ("" if found.plan.beside else f"; evaluates {', '.join(evaluated)}"))
        for text in outcome.notes:
            print(f"  note: {text}")
    pairs = [pair for outcome in found.outcomes for pair in zip(outcome.line.runs, outcome.runs, strict=True)]
    have = {key(run): row for run, row in pairs if row is not None}
    print(f"\n{_extent(found.plan, have, seconds)}")


def _states(outcome: Outcome) -> str:
    """`seeds 0, 1 done (id, id), seed 2 missing`"""
    said: dict[str, list[tuple[str, str]]] = {}
    for planned, row in zip(outcome.line.runs, outcome.runs, strict=True):
        said.setdefault(row.status if row else "missing", []).append((str(planned.seed), row.id if row else ""))
    parts = []
    for status, runs in said.items():
        ids = ", ".join(run for _, run in runs if run)
        parts.append(
            f"seed{'s' * (len(runs) > 1)} {', '.join(seed for seed, _ in runs)} {status}" + (f" ({ids})" if ids else "")
        )
    return "; ".join(parts)


def _print(home: Home, found: Result, form: str) -> None:
    from trainctl.reproduce import render, timing

    if found.plan.beside:
        times = timing.read(home, found)
        grid, as_json, csv = timing.grid(found, times), timing.as_json(found, times), timing.csv(found, times)
    else:
        grid, as_json, csv = render.grid(found), render.as_json(found), render.csv(found)
    if form == "json":
        emit_json(as_json)
    elif form == "csv":
        sys.stdout.write(csv)
    elif form == "markdown":
        from trainctl.compare.render.markdown import write

        sys.stdout.write(write(grid))
    else:
        from trainctl.compare.render.table import lay_out

        screen = console()
        for part in lay_out(grid, screen.width):
            screen.print(part)
