"""Every key of the launch screen, at three sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dashboard import SIZES, Watched, screen_text, until
from textual.widgets import Input

from trainctl.home import Home
from trainctl.launch import scheduler, slots
from trainctl.tui import keys
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.screens.launch import LaunchScreen
from trainctl.tui.widgets.fields import Fields


@SIZES
async def test_every_key_does_what_it_says(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "gpus", list)
    monkeypatch.setattr(scheduler, "ensure", lambda home: None)
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path / "home").create()
    walked: set[tuple[str, str]] = set()
    app = Watched(home)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "No runs yet" in screen_text(pilot))
        await pilot.press("l")
        await until(pilot, lambda: "TRADES on digits" in screen_text(pilot))
        screen = app.screen
        assert isinstance(screen, LaunchScreen)

        async def press(key: str, action: str, *seen: str | Callable[[], object]) -> None:
            walked.add((key, action))
            await pilot.press(key)
            for each in seen:
                await until(pilot, lambda each=each: each() if callable(each) else each in screen_text(pilot))

        def here() -> str:
            found = screen.query_one(Fields).field
            return found.key if found else ""

        await press("slash", "filter", lambda: isinstance(app.focused, Input))
        await pilot.press(*"mart", "enter")
        await until(pilot, lambda: "digits-mart" in screen_text(pilot) and "digits-sat" not in screen_text(pilot))
        await pilot.press("slash", "ctrl+u", *"digits-trades", "enter")
        await until(pilot, lambda: "TRADES on digits" in screen_text(pilot))
        await press("enter", "choose", "as the recipe says", lambda: here() != "")
        await press("p", "pair", "baseline and +TRAIN twin")
        await press("space", "next", "only +TRAIN", "1 run")
        await press("r", "reset", "as the recipe says")
        await pilot.press("down")
        await until(pilot, lambda: here() == "--seeds")
        await press("enter", "edit", lambda: app.focused is screen.query_one("#value", Input))
        await pilot.press(*"0-2", "enter")
        await until(pilot, lambda: "3 runs" in screen_text(pilot))
        await press("ctrl+s", "review", "digits-trades-s2")
        await press("y", "copy", lambda: "clipboard" in "".join(app.told))
        assert "--seeds 0-2" in app.clipboard
        await press("escape", "back", lambda: here() != "")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "digits-trades-s2" in screen_text(pilot))
        await press("ctrl+s", "start", lambda: isinstance(app.screen, HomeScreen))
        assert len(home.run_dirs()) == 3
        await pilot.press("l")
        await until(pilot, lambda: "TRADES on digits" in screen_text(pilot))
        await pilot.press("p")
        await until(pilot, lambda: "digits-trades+train" in screen_text(pilot))
        await press("enter", "start", lambda: isinstance(app.screen, HomeScreen))
        assert len(home.run_dirs()) == 5
    assert walked == {(key.keys, key.action) for key in keys.KEYS if key.place == keys.LAUNCH}
