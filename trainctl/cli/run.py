"""`trainctl run`: check everything, make the run folders, start them, and stay with them to the end."""

from __future__ import annotations

from typing import Annotated

import typer

from trainctl.cli.common import HomeOption, JsonOption, note
from trainctl.home import find_home
from trainctl.launch.queue import HIGHEST


def run(
    recipes: Annotated[
        list[str], typer.Argument(metavar="RECIPE…", help="Names (see `trainctl recipes`) or .toml files.")
    ],
    pair: Annotated[bool, typer.Option("--pair", help="The baseline and its +TRAIN twin.")] = False,
    train: Annotated[bool, typer.Option("--train", help="Turn TRAIN on.")] = False,
    seeds: Annotated[
        str | None, typer.Option(metavar="0-4", help="Seeds: 3, 0-4 or 0,2,7-9.", show_default=False)
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe key; repeatable.", show_default=False),
    ] = [],  # noqa: B006
    grid: Annotated[
        list[str], typer.Option(metavar="KEY=V1,V2", help="A run for each value; repeatable.", show_default=False)
    ] = [],  # noqa: B006
    name: Annotated[str | None, typer.Option(help="Beginning of the runs' names.", show_default=False)] = None,
    tag: Annotated[list[str], typer.Option(help="Tag the runs; repeatable.", show_default=False)] = [],  # noqa: B006
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Runs at a time; they share the cores.", show_default=False),
    ] = None,
    priority: Annotated[int, typer.Option(min=-HIGHEST, max=HIGHEST, metavar="N", help="Larger ones start first.")] = 0,
    hold: Annotated[bool, typer.Option("--hold", help="Queue them held and return.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Queue them and return.")] = False,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Train recipes to the end, with a live view.

    Everything is checked before anything starts. Ctrl-C stops the runs with a checkpoint; closing the terminal leaves
    them at work.
    """
    from trainctl.cli.attend import Presses, attend, emit_queued
    from trainctl.launch import queue, slots
    from trainctl.launch.start import start
    from trainctl.recipes.plan import plan
    from trainctl.registry.labels import check_tag

    place = find_home(home)
    plans = plan(recipes, overrides=settings, grid=grid, seeds=seeds, pair=pair, train=train, name=name)
    tags = [check_tag(text) for text in tag]
    plans, share = slots.share_out(plans, jobs)
    with Presses() as presses:  # from here on a Ctrl-C must find the runs in a state it can stop
        runs = start(place, plans, tags=tags, share=share, place=queue.Place(priority, held=hold))
        if queue.paused(place):
            note("the queue is paused; it goes on with: trainctl queue continue")
        if not (detach or hold):
            raise typer.Exit(attend(place, runs, presses=presses, as_json=as_json))
    named = [(made, planned.name) for made, planned in zip(runs, plans, strict=True)]
    if as_json:
        emit_queued(runs)
        return
    for made, called in named:
        print(made.id, called)
    listed = " ".join(made.id for made in runs)
    note(f"held; let them go with: trainctl queue continue {listed}" if hold else f"watch: trainctl watch {listed}")
