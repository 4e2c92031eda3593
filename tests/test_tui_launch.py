"""Launching from the dashboard: a recipe, its form, what would start, and that the same starts as by command."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboard import Watched, screen_text, told, until
from fake_trainctl import cli, tidy
from textual.pilot import Pilot
from textual.widgets import Input

from engine.rundir import RunDir
from trainctl.cli.app import run as command_line
from trainctl.home import Home
from trainctl.launch import folders, scheduler, slots
from trainctl.tui.feed.draft import GRID, NAME, SEEDS, TAGS
from trainctl.tui.screens.launch import SETTINGS, START, LaunchScreen
from trainctl.tui.widgets.fields import Fields, rows
from trainctl.tui.widgets.lines import fitted
from trainctl.tui.widgets.offers import OfferList

EVIL = "[red]x[/red] \x1b[31mesc\x1b[0m"
SIZES = pytest.mark.parametrize("size", [(80, 24), (120, 40)])


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cores, no GPU, and a working directory of one's own."""
    monkeypatch.setattr(slots, "cores", lambda: 2)
    monkeypatch.setattr(slots, "gpus", list)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Home]:
    """The homes whose queue was to be served; no engine starts."""
    found: list[Home] = []
    monkeypatch.setattr(scheduler, "ensure", found.append)
    return found


async def launch(pilot: Pilot[None]) -> LaunchScreen:
    """Open the screen, and wait until the recipe under its cursor has been read."""
    assert isinstance(pilot.app, Watched)
    screen = LaunchScreen(pilot.app.home)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: "TRADES on digits" in screen_text(pilot))
    return screen


def shows(pilot: Pilot[None], *texts: str) -> Callable[[], bool]:
    return lambda: all(text in " ".join(screen_text(pilot).split()) for text in texts)


async def pick_field(pilot: Pilot[None], screen: LaunchScreen, key: str) -> None:
    """Put the cursor on a field; that keys can do it too is seen elsewhere."""
    fields = screen.query_one(Fields)
    await until(pilot, lambda: fields.field is not None)
    fields.lines.select(key)
    await until(pilot, lambda: fields.field is not None and fields.field.key == key)


async def type_into(pilot: Pilot[None], screen: LaunchScreen, key: str, text: str) -> None:
    await pick_field(pilot, screen, key)
    await pilot.press("enter")
    screen.query_one("#value", Input).value = text
    await pilot.press("enter")


def same_runs(made: list[RunDir], others: list[RunDir]) -> None:
    """Equal but for what every run has of its own."""

    def known(runs: list[RunDir]) -> list[dict[str, Any]]:
        own = {"id", "created", "command"}
        about = [{key: value for key, value in run.json("run.json").items() if key not in own} for run in runs]
        return sorted((one | {"toml": run.recipe.read_text()} for one, run in zip(about, runs, strict=True)), key=str)

    assert known(made) == known(others)


async def test_the_digits_pair_in_three_keys_from_an_empty_home_is_that_of_the_command(
    home: Home, served: list[Home], tmp_path: Path
) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await until(pilot, shows(pilot, "No runs yet"))
        await pilot.press("l")
        await until(pilot, lambda: isinstance(pilot.app.screen, LaunchScreen))
        screen = pilot.app.screen
        await until(pilot, shows(pilot, "TRADES on digits"))
        await pilot.press("p")
        await until(pilot, shows(pilot, "2 runs: start at once", "digits-trades+train-s1", "--pair"))
        assert home.run_dirs() == []  # nothing starts before
        await pilot.press("enter")
        await until(pilot, lambda: pilot.app.screen is not screen)
        assert told(pilot) == "2 runs queued"
    made = home.run_dirs()
    assert served == [home] and len(made) == 2
    command = made[0].json("run.json")["command"]
    assert command == f"trainctl run digits-trades --pair --home {home.path} -d"
    with tidy(Home(tmp_path / "other").create()) as other:
        words = [str(other.path) if word == str(home.path) else word for word in shlex.split(command)[1:]]
        done = cli(other, *words)
        assert done.returncode == 0, done.stderr
        same_runs(made, other.run_dirs())


@SIZES
async def test_from_a_form_with_mistakes_to_the_runs_of_the_command(
    home: Home, served: list[Home], tmp_path: Path, size: tuple[int, int]
) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        screen = await launch(pilot)
        await pilot.press("enter")
        await pick_field(pilot, screen, "attack.eps")
        await pilot.press("enter", "ctrl+u", *"8/25x", "enter")
        await until(pilot, shows(pilot, "✘ '8/25x' is not allowed: expected a valid number", "1 mistake"))
        await type_into(pilot, screen, SEEDS, "2-0")
        await until(pilot, shows(pilot, "did you mean 0-2?", "2 mistakes"))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "--seeds 2-0" in told(pilot))
        fields = screen.query_one(Fields)
        await until(pilot, lambda: fields.field is not None and fields.field.key == SEEDS)  # the first one
        assert screen._step == SETTINGS and home.run_dirs() == []
        await type_into(pilot, screen, "attack.eps", "8/255")
        await type_into(pilot, screen, SEEDS, "0-1")
        await type_into(pilot, screen, f"{GRID}0", "method.beta=1,6")
        await type_into(pilot, screen, TAGS, "mine")
        await pick_field(pilot, screen, "data.flip")
        await pilot.press("space")  # the next choice
        await until(pilot, shows(pilot, "4 runs", "2 changed", "was false"))
        await pilot.press("p")
        await until(pilot, shows(pilot, "8 runs"))
        # Back to the recipes and again: nothing that was typed is lost.
        await pilot.press("escape", "enter")
        await until(pilot, shows(pilot, "8 runs", "2 changed"))
        await pick_field(pilot, screen, "data.flip")
        await pilot.press("r")
        await until(pilot, shows(pilot, "1 changed"))
        await pilot.press("ctrl+s")
        await until(pilot, shows(pilot, "8 runs: 2 at once, 6 wait", "--tag mine", "method.beta=1"))
        await pilot.press("y")
        assert pilot.app.clipboard.startswith("trainctl run digits-trades --pair --seeds 0-1 --set attack.eps=8/255 ")
        await pilot.press("escape", "ctrl+s")
        await until(pilot, shows(pilot, "8 runs: 2 at once"))
        await pilot.press("enter", "enter")  # twice is once
        await until(pilot, lambda: pilot.app.screen is not screen)
    made, other = home.run_dirs(), Home(tmp_path / "other")
    assert len(made) == 8 and served == [home]
    words = shlex.split(made[0].json("run.json")["command"])[1:]
    with pytest.raises(SystemExit, match="0"):
        command_line([str(other.path) if word == str(home.path) else word for word in words])
    same_runs(made, other.run_dirs())


async def test_a_home_that_cannot_be_written_is_told_and_may_be_tried_again(
    home: Home, served: list[Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(home: Home) -> RunDir:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as broken:
        broken.setattr(folders, "_new_folder", refuse)
        async with Watched(home).run_test(size=(80, 24)) as pilot:
            screen = await launch(pilot)
            await pilot.press("p")
            await until(pilot, shows(pilot, "2 runs"))
            for times in (1, 2):
                await pilot.press("enter")
                await until(pilot, lambda times=times: told(pilot).count("cannot write a run folder") == times)
            assert screen._step == START and home.run_dirs() == [] and served == []
            broken.undo()
            await pilot.press("ctrl+s")
            await until(pilot, lambda: "2 runs queued" in told(pilot))


@SIZES
async def test_the_picker_filters_and_opens_files_and_steps_back(home: Home, size: tuple[int, int]) -> None:
    Path("mine.toml").write_text('extends = "digits-trades"\ntitle = "' + EVIL.replace("\x1b", "\\u001b") + '"\n')
    Path("evil[red].toml").write_text('extends = "digits-at"\ndescription = "[bold]much[/bold]"\n')
    async with Watched(home).run_test(size=size) as pilot:
        screen = await launch(pilot)
        offers = screen.query_one(OfferList)
        assert offers.selected is not None and offers.selected.recipe == "digits-trades"
        await pilot.press("slash", *"evil")
        line = screen.query_one("#looked-for", Input)
        await until(pilot, shows(pilot, "evil[red].toml", "[bold]much[/bold]"))
        line.value = "./mine.toml"
        await pilot.press("enter")
        await until(pilot, lambda: offers.selected is not None and offers.selected.recipe == "./mine.toml")
        await until(pilot, shows(pilot, "control characters"))  # no title can have an escape code
        await pilot.press("escape", "slash")
        line.value = "./gone.toml"
        await until(pilot, shows(pilot, "there is no file ./gone.toml"))
        line.value = "zzz"
        await until(pilot, shows(pilot, "no recipe fits"))
        await pilot.press("enter", "enter")
        await until(pilot, lambda: "there is no recipe under the cursor" in told(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: len(offers._items) > 100)
        await pilot.press("end", "home", "enter")
        await until(pilot, shows(pilot, "Settings", "evil[red].toml", "runs"))
        await pilot.press("pagedown", "up", "down", "down")
        assert screen.query_one(Fields).field is not None
        await pilot.press("slash")
        line.value = "radius"
        await until(pilot, lambda: len(rows(screen._form, "radius")) == len(screen.query_one(Fields).lines._items))
        assert "step_size" not in screen_text(pilot) and "eps" in screen_text(pilot)
        await pilot.press("escape", "enter", "escape", "escape", "escape")
        await until(pilot, lambda: pilot.app.screen is not screen)
    assert home.run_dirs() == []


async def test_values_are_drawn_as_text_and_a_click_edits(home: Home) -> None:
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        screen = await launch(pilot)
        await pilot.press("enter")
        await type_into(pilot, screen, NAME, "[b]x")
        await until(pilot, shows(pilot, "[b]x"))
        await pilot.click("#fields", offset=(5, 2))
        fields = screen.query_one(Fields)
        assert fields.field is not None and fields.field.key == SEEDS
        await pilot.click("#fields", offset=(5, 2))
        # A click only asks for the field: where it stands is known once the screen was laid out anew.
        await until(pilot, lambda: screen.query_one("#value", Input).region.y == fields.lines.region.y + 2)
        assert fields.editing
        await pilot.press("escape")
        assert not fields.editing and screen._step == SETTINGS
        await pilot.press("ctrl+s")
        await until(pilot, shows(pilot, "[b]x-s1", "--name '[b]x'"))


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("ab", 4, "ab  "), ("abcd", 4, "ab… "), ("ab", -4, " ab "), ("a\nb\tc", 0, "a b c"), ("\x1b[1m", 0, "\\x1b[1m"),
     ("日本語", 6, "日本… ")],
)  # fmt: skip
def test_a_text_in_a_column(text: str, width: int, shown: str) -> None:
    assert fitted(text, width).rstrip() == shown.rstrip()
