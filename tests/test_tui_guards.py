"""Mistakes of ours, and absurd folders: the screen stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dashboard import Watched, made, opened, screen_text, told, until
from textual.command import CommandPalette
from textual.screen import ModalScreen
from textual.strip import Strip
from textual.widgets import Input

from trainctl.home import Home
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.screens.once import OnceScreen
from trainctl.tui.widgets.runs import RunsTable


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


def broken(*_: object, **__: object) -> Strip:
    raise ZeroDivisionError("of [ours]")


async def test_an_action_that_fails_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HomeScreen, "action_mark", broken)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("space")
        await until(pilot, lambda: "ZeroDivisionError: of [ours]" in told(pilot))
        assert "dashboard.log" in told(pilot) and "in broken" in (home.path / "dashboard.log").read_text()


async def test_a_message_that_is_not_understood_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HomeScreen, "_look", broken)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("slash", "x")
        await until(pilot, lambda: "ZeroDivisionError: of [ours]" in told(pilot))
        await pilot.press("y")
        assert pilot.app.screen.query_one("#filter", Input).value == "xy"


async def test_a_line_that_cannot_be_drawn_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunsTable, "_drawn", broken)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "cannot be drawn: ZeroDivisionError: of [ours]" in screen_text(pilot))


async def test_absurd_numbers_are_shown_as_such(home: Home) -> None:
    about = home.run("base0").json("run.json")
    (home.run("base0").path / "run.json").write_text(
        json.dumps(about | {"created": 0}).replace('"created": 0', '"created": -Infinity')
    )
    with open(home.run("base1").events, "a") as events:
        for step, value in enumerate((1e308, -1e308, "nan", "inf", 5e-324)):
            events.write(
                json.dumps({"event": "step", "t": 1e300 * step, "step": 100 + step, "epoch": 4, "loss": value}) + "\n"
            )
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        while pilot.app.screen.query_one(RunsTable).here != "base1":
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: "losses" in screen_text(pilot))
        await pilot.press("x", "x", "l", "m")
        await pilot.pause()
        assert "Error" not in told(pilot)


async def test_a_screen_below_a_dialog_is_not_left(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("l")
        await until(pilot, lambda: "recipe" in screen_text(pilot))
        launch = pilot.app.screen
        assert isinstance(launch, OnceScreen)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        launch.dismiss()
        await pilot.pause()
        assert isinstance(pilot.app.screen, HelpScreen)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


async def test_marks_of_archived_runs_go_and_the_others_are_named(home: Home) -> None:
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("a")
        await until(pilot, lambda: "6 marked" in screen_text(pilot))
        home.run("base0").write_json("labels.json", {"archived": True})
        pilot.app.watcher.wake()  # type: ignore[attr-defined]
        await until(pilot, lambda: "5 marked" in screen_text(pilot))
        await pilot.press("D")
        await until(
            pilot, lambda: isinstance(pilot.app.screen, ConfirmScreen) and "Delete 5 runs (" in screen_text(pilot)
        )
        assert isinstance(pilot.app.screen, ModalScreen) and "and 2 more" in screen_text(pilot)


async def test_a_name_of_nobody_is_refused_at_the_field(home: Home) -> None:
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("c")
        await until(pilot, lambda: "PGD-20" in screen_text(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "Export what is shown" in screen_text(pilot))
        pilot.app.screen.query_one(Input).value = "~nobody-at-all/x.md"
        await pilot.press("enter")
        await until(pilot, lambda: "there is no home folder for" in screen_text(pilot))


async def test_the_palette_opens_while_the_one_before_is_still_being_closed(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for _ in range(5):
            pilot.app.action_command_palette()
            await pilot.pause()
            pilot.app.pop_screen()
        pilot.app.action_command_palette()
        await pilot.pause()
        assert CommandPalette.is_open(pilot.app)
