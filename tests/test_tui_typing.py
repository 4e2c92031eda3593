"""Keys that come faster than they are obeyed mean what they would mean one by one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from dashboard import Watched, key, made, opened, screen_text, until
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Input, TabbedContent

from trainctl.registry.query import RunRow
from trainctl.tui import typing
from trainctl.tui.feed.runs import Overview, Question, RunsFeed
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.widgets.comparison_curves import PairCurves


def burst(pilot: Pilot[None], names: list[str]) -> None:
    """All at once, as a paste or a slow line brings them."""
    for name in names:
        pilot.app.post_message(key(name))


@pytest.fixture(autouse=True, params=[typing.PATIENCE, 0.001])
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all takes long beside it."""
    monkeypatch.setattr(typing, "PATIENCE", request.param)


async def test_all_are_marked_that_fit_the_filter_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer may be long in coming, where the index has much to read; until then all runs are seen."""
    go_on, overview = threading.Event(), RunsFeed.overview

    def late(feed: RunsFeed, question: Question) -> Overview | None:
        assert not question.view.filtered or go_on.wait(60)
        return overview(feed, question)

    monkeypatch.setattr(RunsFeed, "overview", late)
    app = Watched(made(tmp_path / "home"))
    try:
        async with app.run_test(size=(80, 24)) as pilot:
            await opened(pilot)
            burst(pilot, ["/", *"seed=1", "enter", "a"])
            home = app.screen
            assert isinstance(home, HomeScreen)
            await until(pilot, lambda: bool(home._marked))
            assert home._marked == {"base1", "train1"}
            await until(pilot, lambda: "6 runs · 2 marked · filtering …" in screen_text(pilot))
            go_on.set()
            await until(pilot, lambda: "2 marked · 2 fit the filter" in screen_text(pilot))
    finally:
        go_on.set()


@pytest.mark.parametrize("text", ["status=done", "sssqrd", "seed=1"])
async def test_a_filter_typed_in_one_go(tmp_path: Path, text: str) -> None:
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        burst(pilot, ["/", *text])
        field = app.screen.query_one("#filter", Input)
        await until(pilot, lambda: field.value == text)
        assert isinstance(app.screen, HomeScreen) and app.told == []


async def test_a_key_behind_enter(tmp_path: Path) -> None:
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        burst(pilot, ["/", *"seed=1", "enter", "/", "ctrl+u", *"seed=0", "enter", "g", "slash", "x"])
        await until(
            pilot, lambda: app.screen.query_one("#filter", Input).value == "x"
        )  # takes the place of what was selected
        assert app.settings.group == "recipe"


async def test_into_a_dialog_and_out_again(tmp_path: Path) -> None:
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        burst(
            pilot, ["s", "n", "question_mark", "escape", "/", *"nonsense", "escape", "enter", "2", "escape", "/", *"x"]
        )
        await until(
            pilot,
            lambda: app.screen.query("#filter").first(Input).value == "x" if app.screen.query("#filter") else False,
        )
        assert isinstance(app.screen, HomeScreen)


async def test_a_key_behind_one_whose_runs_a_thread_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`a` marks all: `c` behind it means these, and `2` behind that means the comparison, not the runs."""
    found = RunsFeed.runs

    def slowly(feed: RunsFeed, ids: Iterable[str]) -> list[RunRow]:
        time.sleep(0.2)
        return found(feed, ids)

    monkeypatch.setattr(RunsFeed, "runs", slowly)
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        burst(pilot, ["a", "c", "2"])
        await until(
            pilot, lambda: bool(app.screen.query(PairCurves)) and app.screen.query_one(TabbedContent).active == "curves"
        )
        assert isinstance(app.screen, CompareScreen)
        assert len(app.screen._runs) == 6 and app.told == []


async def test_leaving_although_an_answer_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typing, "AT_MOST", 0.1)
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        app.hold_keys()
        burst(pilot, ["question_mark"])
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))


async def test_a_key_for_a_screen_that_is_not_made_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount = CompareScreen.mount_composed_widgets

    async def slowly(screen: CompareScreen, widgets: list[Widget]) -> None:
        await asyncio.sleep(0.5)
        await mount(screen, widgets)

    monkeypatch.setattr(CompareScreen, "mount_composed_widgets", slowly)
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        screen = CompareScreen(app.home)
        app.push_screen(screen)
        assert not screen.query(TabbedContent)
        assert await app.run_action("tab('curves')", screen)
        assert app.told == [] and screen.query(TabbedContent)


async def test_a_key_for_a_screen_that_is_left(tmp_path: Path) -> None:
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        screen = CompareScreen(app.home)
        await app.push_screen(screen)
        await screen.dismiss()
        assert not await app.run_action("tab('curves')", screen)
        assert app.told == []
