"""Acts that take long, as tags on ten thousand runs: they are told of, and outlive the screen that they came from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard import Watched, made, opened, told, until
from textual.pilot import Pilot

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.tui import app as dashboard
from trainctl.tui.feed import acts
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.screens.run import RunScreen


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Resuming waits for this."""
    go_on = threading.Event()

    def resume(*_: Any) -> str:
        assert go_on.wait(60)
        return "resumed at last"

    monkeypatch.setattr(acts, "resume", resume)
    yield go_on
    go_on.set()


async def resumed_and_left(pilot: Pilot[None]) -> None:
    """Resume a run from its own screen, and go back to the runs."""
    await opened(pilot)
    await pilot.press("enter")
    await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen) and pilot.app.screen._view is not None)
    await pilot.press("r", "escape")
    await until(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


async def test_an_act_is_told_where_its_screen_has_been_left(home: Home, held: threading.Event) -> None:
    async with Watched(home).run_test() as pilot:
        await resumed_and_left(pilot)
        held.set()
        await until(pilot, lambda: "resumed at last" in told(pilot))


async def test_the_error_of_an_act_is_told_where_its_screen_has_been_left(
    home: Home, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = acts.resume

    def refused(*given: Any) -> str:
        raise UsageError(f"no: {wait(*given)}", "look again")

    monkeypatch.setattr(acts, "resume", refused)
    async with Watched(home).run_test() as pilot:
        await resumed_and_left(pilot)
        held.set()
        await until(pilot, lambda: "no: resumed at last\nlook again" in told(pilot))


async def test_an_act_that_takes_long_says_so_once(
    home: Home, held: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "LONG", 0.05)
    async with Watched(home).run_test() as pilot:
        await resumed_and_left(pilot)
        await until(pilot, lambda: "still at it" in told(pilot))
        held.set()
        await until(pilot, lambda: "resumed at last" in told(pilot))
        assert told(pilot).count("still at it") == 1


async def test_whoever_leaves_in_the_middle_of_an_act_is_told_what_is_waited_for(
    home: Home, held: threading.Event, capfd: pytest.CaptureFixture[str]
) -> None:
    async def leave(pilot: Pilot[None]) -> None:
        await resumed_and_left(pilot)
        await pilot.press("q")

    await Watched(home).run_async(headless=True, auto_pilot=leave)
    assert "still being done" in capfd.readouterr().err
    held.set()
    await Watched(home).run_async(headless=True, auto_pilot=lambda pilot: pilot.press("q"))
    assert capfd.readouterr().err == ""


async def test_a_long_notice_stays_until_it_is_read(home: Home) -> None:
    app = Watched(home)
    async with app.run_test() as pilot:
        await opened(pilot)
        app.notify("short")
        app.notify("x" * 300, severity="error")
        app.screen.notify("y" * 300, timeout=2)
        await pilot.pause()
        assert [round(each.timeout) for each in app._notifications] == [5, 20, 2]
