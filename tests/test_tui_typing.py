"""Keys that come faster than they are obeyed mean what they would mean one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from dashboard import Watched, key, made, opened, until
from textual.pilot import Pilot
from textual.widgets import Input

from trainctl.tui import typing
from trainctl.tui.screens.home import HomeScreen


def burst(pilot: Pilot[None], names: list[str]) -> None:
    """All at once, as a paste or a slow line brings them."""
    for name in names:
        pilot.app.post_message(key(name))


@pytest.fixture(autouse=True, params=[typing.PATIENCE, 0.001])
def patience(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where all takes long beside it."""
    monkeypatch.setattr(typing, "PATIENCE", request.param)


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
