"""Whatever is pressed, and however the window changes, nothing raises."""

from __future__ import annotations

import asyncio
import os
import random
import re
from pathlib import Path

import pytest
from dashboard import Watched, key, made, opened, until
from textual import events
from textual.geometry import Size
from textual.pilot import Pilot

from trainctl.launch import processes, scheduler
from trainctl.tui import keys

PRESSED = int(os.environ.get("TRAINCTL_KEYS", "2500"))  # on each of two screens
RESIZES = int(os.environ.get("TRAINCTL_RESIZES", "8"))  # of each of eleven screens
BATCH = 50
# Coverage must not be paused here: a worker hung when that was tried.
MORE = (
    "up", "down", "pageup", "pagedown", "home", "end", "tab", "shift+tab", "backspace", "delete", "space", "y", "n",
    "0", "5", "=", ">", "e", "ctrl+a", "ctrl+k", "ctrl+w", "f5", "[", "]", "ä", "backslash", "quotation_mark",
)  # fmt: skip
LEAVES = {"q", "ctrl+q", "ctrl+c"}  # they end the dashboard, as they should


def every_key() -> list[str]:
    known = {key for entry in keys.KEYS for key in entry.keys.split(",")}
    return sorted((known | set(MORE)) - LEAVES)


async def stays(app: Watched) -> None:
    """In place of leaving, which the palette offers too."""


async def pressed(pilot: Pilot[None], names: list[str]) -> None:
    """As fast as the dashboard obeys."""
    app = pilot.app
    assert isinstance(app, Watched)
    for start in range(0, len(names), BATCH):
        for name in names[start : start + BATCH]:
            app.post_message(key(name))
        await until(pilot, lambda: not app._typed and not app._under_way)
        assert app.is_running


def mistakes(home: Path) -> list[str]:
    """What was told as unforeseen, but for what Textual's own palette makes of keys that come while it fills."""
    log = home / "dashboard.log"
    traces = re.split(r"(?m)^(?=\d{4}-)", log.read_text())[1:] if log.exists() else []
    return [trace for trace in traces if not re.search(r"textual/(command|widgets/_option_list)\.py", trace)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("size", "seed"), [((80, 24), 0), ((120, 40), 1)])
async def test_random_keys(tmp_path: Path, size: tuple[int, int], seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler, "ensure", lambda home: None)
    for deed in ("request_stop", "kill"):  # the run that seems to be at work is this process
        monkeypatch.setattr(processes, deed, lambda run: None)
    monkeypatch.setattr(Watched, "action_quit", stays)
    monkeypatch.chdir(tmp_path)  # what is exported by chance lands here
    chance = random.Random(seed)
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await pressed(pilot, chance.choices(every_key(), k=PRESSED))
    assert mistakes(tmp_path / "home") == []


@pytest.mark.slow
async def test_a_storm_of_resizes(tmp_path: Path) -> None:
    chance = random.Random(3)
    app = Watched(made(tmp_path / "home"))
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        for key in ("", "enter", "2", "escape", "c", "escape", "l", "escape", "m", "escape", "question_mark"):
            if key:
                await pilot.press(key)
            for _ in range(RESIZES):
                size = Size(chance.choice([1, 2, 20, 40, 80, 120, 300]), chance.choice([1, 2, 5, 24, 60, 90]))
                app.post_message(events.Resize(size, size))
                await asyncio.sleep(0.02)  # some are overtaken by the next, as when a window is pulled
            await pilot.resize_terminal(120, 40)
            await pilot.pause()
    assert mistakes(tmp_path / "home") == []
