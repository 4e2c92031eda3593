"""The dashboard, driven by its keys on real run folders."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dashboard import Watched, made, opened, screen_text, until

from trainctl.home import Home
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.run import RunScreen

ROOT = Path(__file__).parent.parent


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often, so that tests wait less."""
    monkeypatch.setattr(LiveScreen, "period", 0.25)
    monkeypatch.setattr(CompareScreen, "period", 0.25)


async def test_the_palette_calls_what_the_keys_call(home: Home) -> None:
    app = Watched(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        found = {command.title: command for command in app.get_system_commands(app.screen)}
        assert {"Compare (c)", "Open (⏎)", "Filter (/)"} <= set(found)
        await pilot.press("ctrl+p", *"compare")
        await until(pilot, lambda: "Compare (c)" in screen_text(pilot))
        await pilot.pause(0.5)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))


async def test_quitting_leaves_the_runs_alone(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.runs.rglob("*") if path.is_file()}
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("q")
    assert {path: path.read_bytes() for path in home.runs.rglob("*") if path.is_file()} == before


def test_without_a_terminal_it_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainctl", "--home", str(tmp_path)], capture_output=True, text=True, timeout=300,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "the dashboard needs a terminal" in done.stderr
    assert "Traceback" not in done.stderr
