"""What the tests of the dashboard share: a home with runs, and how to wait for what the screen shows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from folders import append, make_run
from textual import events
from textual.pilot import Pilot
from textual.widgets import Static

from trainctl.home import Home
from trainctl.tui.app import Dashboard
from trainctl.tui.widgets.runs import RunsTable

SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])


def made(folder: Path) -> Home:
    """A pair of two seeds that is done, one run at work, one queued; their names try to be markup."""
    home = Home(folder).create()
    for seed in (0, 1):
        make_run(home, f"base{seed}", seed=seed, created=1000.0 + seed, metrics={"natural": 95.0, "pgd20": 53.0 + seed})
        make_run(
            home, f"train{seed}", seed=seed, topology=True, created=1010.0 + seed,
            metrics={"natural": 96.0, "pgd20": 58.0 + 2 * seed},
        )  # fmt: skip
    at_work = make_run(
        home, "atwork", seed=2, status="running", created=1020.0, epochs=9, name="[red]me[/red]-s2", group="w", pair="w"
    )
    epoch = {"epoch": 8, "epochs": 9, "step": 80, "stage": "train", "loss": 0.25, "train_natural": 88.0, "seconds": 2.0}
    append(at_work, [("stage", {"stage": "train"}), ("epoch", {**epoch, "validation_natural": 90.0})], 1040.0)
    at_work.log.write_text("first line\n[bold]loss[/bold] \x1b[31m0.5\x1b[0m\n10%\r100%\n")
    make_run(home, "waiting", seed=3, status="queued", created=1030.0, group="q", pair="q", epochs=9)
    return home


def crowd(home: Home, number: int) -> Home:
    """So many queued runs, the newest called q(number-1): folders with as little in them as a run can have."""
    for n in range(number):
        folder = home.create().run(f"q{n:04}")
        folder.path.mkdir()
        about = {"id": folder.id, "name": f"crowd-s{n}", "recipe": "crowd", "seed": n, "created": 1000.0 + n}
        folder.write_json("run.json", {**about, "group": "crowd", "pair": "crowd"})
    return home


async def until(pilot: Pilot[None], condition: Callable[[], bool], timeout: float = 60.0) -> None:
    """Wait for something to show."""
    for _ in range(int(timeout / 0.05)):
        await pilot.pause(0.05)
        if condition():
            return
    raise AssertionError(f"never so; the screen shows\n{screen_text(pilot)}")


def screen_text(pilot: Pilot[None]) -> str:
    """All characters on the screen."""
    strips = pilot.app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip) for strip in strips)


def table(pilot: Pilot[None]) -> RunsTable:
    return pilot.app.screen.query_one(RunsTable)


def lines(pilot: Pilot[None]) -> dict[str, list[str]]:
    """The cells of the table by run."""
    return table(pilot).written()


class Watched(Dashboard):
    """Keeps what it told, which the screen shows for some seconds only."""

    def __init__(self, home: Home) -> None:
        super().__init__(home)
        self.told: list[str] = []

    def notify(self, message: str, **how: Any) -> None:
        self.told.append(message)
        super().notify(message, **how)


def told(pilot: Pilot[None]) -> str:
    assert isinstance(pilot.app, Watched)
    return "\n".join(pilot.app.told)


async def opened(pilot: Pilot[None], runs: int = 6) -> None:
    await until(pilot, lambda: table(pilot).row_count == runs)


async def select(pilot: Pilot[None], run: str) -> None:
    """Move the cursor by keys to a run."""
    while table(pilot).selected != run:
        before = table(pilot).cursor_row
        await pilot.press("down")
        assert table(pilot).cursor_row == before + 1
    await until(pilot, lambda: run in str(pilot.app.screen.query_one("#facts", Static).content))


CHARACTERS = {"space": " ", "slash": "/", "equals_sign": "=", "question_mark": "?", "minus": "-", "plus": "+"}


def key(name: str) -> events.Key:
    """A key as the terminal gives it, for a test that does not wait for what each one does."""
    name = {character: long for long, character in CHARACTERS.items()}.get(name, name)
    return events.Key(name, CHARACTERS.get(name, name if len(name) == 1 else None))
