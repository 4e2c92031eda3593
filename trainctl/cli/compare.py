"""`trainctl compare`: baselines beside their +TRAIN twins."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from trainctl.cli.common import HomeOption, JsonOption, console, emit_json, note
from trainctl.home import find_home


def compare(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]…",
            show_default=False,
            help="Runs as in `ls`; nothing, or the word runs: all that are done.",
        ),
    ] = None,
    form: Annotated[
        Literal["table", "json", "csv", "markdown", "latex"], typer.Option("--format", "-f", help="How it is printed.")
    ] = "table",
    checkpoint: Annotated[Literal["best", "last"], typer.Option("--checkpoint", help="Whose numbers.")] = "best",
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Compare baselines with their +TRAIN twins over seeds: mean ± std, the paired difference and its interval, the
    time for an epoch, and what else differs.
    """
    from trainctl.compare import report
    from trainctl.registry import select

    place = find_home(home)
    selected = select.resolve(place, runs) if runs and runs != ["runs"] else None
    found = report.compare(place, selected, checkpoint)
    if as_json or form == "json":
        emit_json(found.json())
    elif not found.pairs and not found.alone:
        note("nothing to compare yet; `trainctl run RECIPE --pair` makes a pair")
    elif form == "table":
        from trainctl.compare.render.table import table

        screen = console()
        for part in table(found, screen.width):
            screen.print(part)
    else:
        from trainctl.compare.render import render

        sys.stdout.write(render(found, form))
