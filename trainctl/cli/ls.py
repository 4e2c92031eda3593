"""`trainctl ls`: the runs."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from trainctl.cli.common import HomeOption, JsonOption, console, note
from trainctl.errors import UsageError
from trainctl.home import Home, find_home
from trainctl.registry import ingest, query
from trainctl.registry.query import RunRow

NEWEST = 40
SHOWN = ("natural", "pgd20", "aa")
HEADS = {"natural": "natural", "pgd20": "PGD-20", "aa": "AA"}
STYLES = {"done": "green", "running": "cyan", "starting": "cyan", "stopping": "yellow", "queued": "dim"}


def ls(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]…",
            show_default=False,
            help="An id, its beginning, a name, @last, tag:x, recipe:x, group:x or a filter.",
        ),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=10**9, help="How many of the newest.")] = NEWEST,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All runs.")] = False,
    archived: Annotated[bool, typer.Option("--archived", help="Archived runs too.")] = False,
    sort: Annotated[
        str,
        typer.Option("--sort", metavar="KEY", show_default=False, help="By a key or metric; -KEY: the largest first."),
    ] = "",
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """List runs: the newest, or those that are named. --json prints all of them, the oldest first."""
    place = find_home(home)
    hidden = 0
    why = ""
    if runs:
        from trainctl.registry import select

        rows = select.resolve(place, runs, archived=archived)
        total = len(rows)
        why = "" if rows else select.why_none(place, runs, archived=archived)
    else:
        rows, total = _newest(place, number, archived) if not (sort or everything or as_json) else _all(place, archived)
        hidden = query.count(place) - total
    if sort:
        rows = sort_rows(rows, sort)
    if as_json:
        _print_json(rows)
        return
    shown = rows if sort else rows[::-1]
    shown = shown if everything else shown[:number]
    if rows:
        _print(shown)
    elif runs or not hidden:
        note("no run fits" + f": {why}" * bool(why) if runs else "no runs yet; start one with `trainctl run RECIPE`")
    if len(shown) < total:
        note(f"… and {total - len(shown)} more; --all shows all {total}")
    if hidden:
        note(f"{hidden} archived run(s) are hidden; --archived shows them")


def _newest(home: Home, number: int, archived: bool) -> tuple[list[RunRow], int]:
    """The newest runs, oldest first, and how many there are; those that are archived only with `archived`."""
    looked = ingest.freshen(home, brief=True)
    rows, total = _window(home, number, archived)
    if looked:  # and need not wait for another process: now closely, at those that are listed
        ingest.freshen(home, [row.id for row in rows])
        rows, total = _window(home, number, archived)
    return rows, total


def _all(home: Home, archived: bool) -> tuple[list[RunRow], int]:
    """The same of all runs."""
    ingest.freshen(home)
    return _window(home, query.count(home), archived)


def _window(home: Home, number: int, archived: bool) -> tuple[list[RunRow], int]:
    from trainctl.registry.window import Table, View

    found = Table(home).window(View(archived=archived), 0, number)
    return [row for row in reversed(found.shown) if isinstance(row, RunRow)], found.total


def sort_rows(rows: list[RunRow], key: str) -> list[RunRow]:
    """`rows` by a key of `ls --json` or a metric, those without it last; UsageError if no run has such a key."""
    descending, name = key.startswith("-"), key.lstrip("-")
    own = [field for field in RunRow.__dataclass_fields__ if field not in ("metrics", "tags", "threats")]
    if rows and name not in own and not any(name in row.metrics for row in rows):
        metrics = sorted({metric for row in rows for metric in row.metrics})
        raise UsageError(f"--sort: no run has the key {name!r}", "known: " + ", ".join(own + metrics))

    def value(row: RunRow) -> Any:
        return getattr(row, name) if name in own else row.metrics.get(name)

    having = [row for row in rows if value(row) is not None]
    missing = [row for row in rows if value(row) is None]
    return sorted(having, key=value, reverse=descending) + missing


def _print_json(rows: list[RunRow]) -> None:
    """A line a key: json.dumps with an indent works in Python and takes three times as long for a thousand runs."""
    encode = json.JSONEncoder(allow_nan=False).encode
    runs = (",\n".join(f'    "{key}": {encode(value)}' for key, value in row.json().items()) for row in rows)
    print("[\n" + ",\n".join(f"  {{\n{run}\n  }}" for run in runs) + "\n]" if rows else "[]")


def _print(rows: list[RunRow]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from trainctl.cli.words import OUR_READING
    from trainctl.compare.marks import mark

    metrics = [name for name in SHOWN if any(row.metrics.get(name) is not None for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=0, show_edge=False)
    table.add_column("id", no_wrap=True)
    table.add_column("name", overflow="fold", ratio=1)
    table.add_column("status", no_wrap=True)
    for head in ("epoch", *(HEADS[name] for name in metrics), "age"):
        table.add_column(head, justify="right", no_wrap=True)
    marked = mark({name: HEADS[name] for name in metrics}, [(row.metrics, row.threats) for row in rows])
    now = time.time()
    for row, marks in zip(rows, marked.marks, strict=True):
        name = Text(row.name + "†" * bool(row.our_reading)).append("".join(f" #{tag}" for tag in row.tags), style="dim")
        status = Text(row.status, style=STYLES.get(row.status, "red"))
        epochs = f"{row.epoch}/{row.epochs}" if row.epochs else str(row.epoch)
        values = [_percent(row.metrics.get(metric)) + marks.get(metric, "") for metric in metrics]
        table.add_row(row.id, name, status, epochs, *values, age(row.created, now))
    screen = console()
    screen.print(table)
    if marked.caption:
        screen.print(Text(marked.caption, style="dim"))
    for said in marked.notes:
        screen.print(Text(said))
    if any(row.our_reading for row in rows):
        screen.print(Text(OUR_READING))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def age(then: float | None, now: float) -> str:
    """How long ago, in the largest unit that fits: 5s, 12m, 3h, 8d."""
    if then is None:
        return "–"
    seconds = max(0.0, now - then)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
