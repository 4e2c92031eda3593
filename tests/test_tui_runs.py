"""The runs screen: the table and its window, filter, groups, marks, columns, panel and help."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboard import SIZES, Watched, crowd, lines, made, opened, screen_text, select, table, told, until
from folders import append, make_run
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from trainctl.errors import MachineError
from trainctl.home import Home
from trainctl.tui import keys
from trainctl.tui.feed.runs import Overview, Question, RunsFeed
from trainctl.tui.screens.columns import ColumnsScreen
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.home import HomeScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.prompt import PromptScreen
from trainctl.tui.screens.run import RunScreen


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often, so that tests wait less."""
    monkeypatch.setattr(LiveScreen, "period", 0.25)


def column(pilot: Pilot[None], name: str) -> dict[str, str]:
    """A column of the table by run."""
    at = [shown.key for shown in table(pilot).shown_columns].index(name)
    return {run: cells[at] for run, cells in lines(pilot).items()}


def title(pilot: Pilot[None]) -> str:
    return screen_text(pilot).split("\n")[0]


@SIZES
async def test_an_empty_home_says_what_to_do_next(tmp_path: Path, size: tuple[int, int]) -> None:
    async with Watched(Home(tmp_path).create()).run_test(size=size) as pilot:
        await until(pilot, lambda: "trainctl run digits-trades --pair" in screen_text(pilot))
        await pilot.press("enter", "s", "r", "space", "g", "a", "minus", "left", "right", "greater_than_sign")
        await until(pilot, lambda: "no run under the cursor" in told(pilot))
        make_run(Home(tmp_path), "first")
        await opened(pilot, 1)
        await until(pilot, lambda: "digits-trades --pair" not in screen_text(pilot))


async def test_why_no_run_can_be_read_stands_in_their_place(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise MachineError("cannot read [the] runs", "make room")

    overview = RunsFeed.overview
    monkeypatch.setattr(RunsFeed, "overview", refused)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "cannot read [the] runs" in told(pilot))
        pilot.app.clear_notifications()
        await until(pilot, lambda: "make room" in screen_text(pilot))
        assert not table(pilot).display
        monkeypatch.setattr(RunsFeed, "overview", overview)
        await opened(pilot)
        await until(pilot, lambda: table(pilot).display and "make room" not in screen_text(pilot))


@pytest.mark.parametrize("size", [(80, 14), (40, 12), (200, 12)])
async def test_a_low_window_still_shows_runs(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        await until(pilot, lambda: all(f"{glyph} " in screen_text(pilot) for glyph in "○●✔"))
        await until(pilot, lambda: "no losses yet" in screen_text(pilot))  # of the first, in the panel


@SIZES
async def test_runs_stand_newest_first_with_their_numbers(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        assert list(lines(pilot)) == ["waiting", "atwork", "train1", "train0", "base1", "base0"]
        wide = size[0] > 110
        assert column(pilot, "status")["waiting"] == "○ queued"
        assert column(pilot, "name")["atwork"] == "[red]me[/red]"
        assert column(pilot, "method")["train1"] == ("trades +TRAIN" if wide else "trades+T")
        assert column(pilot, "epoch")["train1"] == "3/3"
        assert column(pilot, "epoch")["atwork"].split() == ["▰▰▰▰▱" if wide else "▰▰▱", "8/9"]
        assert column(pilot, "eta")["atwork"] == "0:02"  # one epoch of 2 s is left
        assert column(pilot, "natural")["atwork"] == "90.0v"  # on the validation set
        assert column(pilot, "robust")["train1"] == "60.0 pgd20"
        if wide:
            assert column(pilot, "curve")["train1"] == "▁▄▇"
        shown = screen_text(pilot)
        assert "6 runs · 1 running · 1 queued" in title(pilot)
        assert all(len(line) <= size[0] for line in shown.split("\n"))
        assert "60.0 pgd20" in shown
        assert "age▼" in shown or not wide


@SIZES
async def test_the_panel_follows_the_cursor(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        shown = screen_text(pilot)
        assert "[red]me[/red]-s2" in shown
        assert "epoch 8/9" in shown
        assert "[bold]loss[/bold] 0.5" in shown  # neither markup nor colour codes
        assert "10%" not in shown.replace("100%", "")
        assert "train 88.0" in shown
        assert "validation_natural 90" in shown


async def test_a_new_line_in_the_events_shows_by_itself(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        values = {"loss": 0.25, "loss_robust": 0.125, "loss_topology": 0.125, "validation_natural": 77.5}
        event = {"epoch": 9, "epochs": 9, "step": 90, "stage": "train", "seconds": 2.0, **values}
        append(home.run("atwork"), [("stage", {"stage": "train"}), ("epoch", event)], 2000.0)
        await until(pilot, lambda: column(pilot, "epoch")["atwork"].endswith(" 9/9"))
        assert column(pilot, "natural")["atwork"] == "77.5v"
        await until(pilot, lambda: "loss 0.250 = robust 0.125 + topology 0.125" in screen_text(pilot))
        assert table(pilot).selected == "atwork"
        home.run("atwork").write_json("exit.json", {"status": "oom", "code": 1, "reason": "out of memory"})
        await until(pilot, lambda: column(pilot, "status")["atwork"] == "✘ oom")
        await until(pilot, lambda: "out of memory" in screen_text(pilot))


async def test_one_question_a_period_is_asked_and_only_while_it_is_seen(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveScreen, "period", 0.5)
    asked: list[Question] = []
    drawn: list[Overview] = []
    real, show = RunsFeed.overview, HomeScreen.show
    monkeypatch.setattr(RunsFeed, "overview", lambda self, question: (asked.append(question), real(self, question))[1])
    monkeypatch.setattr(HomeScreen, "show", lambda self, answer: (drawn.append(answer), show(self, answer))[1])
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.pause(1.2)
        before, seen = len(asked), len(drawn)
        await pilot.pause(1.6)
        assert 2 <= len(asked) - before <= 5
        assert len(drawn) == seen  # nothing was new
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        before = len(asked)
        await pilot.pause(1.2)
        assert len(asked) - before <= 1


async def test_the_panel_fills_its_room_with_the_log(home: Home) -> None:
    home.run("waiting").log.write_text("".join(f"line {number}\n" for number in range(30)))
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "line 26" in screen_text(pilot) and "line 29" in screen_text(pilot))
        with open(home.run("waiting").log, "a") as file:
            file.write("one more\n")  # no other file changes
        await until(pilot, lambda: "one more" in screen_text(pilot))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "line 21" in screen_text(pilot) and "one more" in screen_text(pilot))


async def test_the_cursor_stays_on_its_run(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        shutil.rmtree(home.run("waiting").path)
        await opened(pilot, 5)
        assert (table(pilot).selected, table(pilot).cursor_row) == ("atwork", 0)
        make_run(home, "newer", status="queued", created=2000.0)
        await opened(pilot, 6)
        assert (table(pilot).selected, table(pilot).cursor_row) == ("atwork", 1)
        assert "newer" in lines(pilot)
        shutil.rmtree(home.run("atwork").path)
        await opened(pilot, 5)
        assert table(pilot).selected == "train1"  # the next takes its place


async def test_of_many_runs_a_window_is_held(tmp_path: Path) -> None:
    home = crowd(Home(tmp_path), 300)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot, 300)
        assert len(lines(pilot)) < 100  # a few screens of them, not all
        for _ in range(3):
            await pilot.press("pagedown")
        await until(pilot, lambda: table(pilot).selected != "")
        row = table(pilot).cursor_row
        assert table(pilot).selected == f"q{299 - row:04}"
        assert f"crowd-s{299 - row}" in screen_text(pilot) or f"{299 - row}" in screen_text(pilot)
        await pilot.press("end")
        await until(pilot, lambda: table(pilot).selected == "q0000")
        assert table(pilot).cursor_row == 299
        make_run(home, "newer", status="queued", created=5000.0)
        await opened(pilot, 301)
        assert (table(pilot).selected, table(pilot).cursor_row) == ("q0000", 300)
        await until(pilot, lambda: "…" not in screen_text(pilot).split("\n")[3])
        await pilot.press("home")
        await until(pilot, lambda: table(pilot).selected == "newer")
        top = table(pilot)
        top.scroll_to(y=150, animate=False)  # as the wheel does: the cursor stays where it is, out of sight
        await until(pilot, lambda: "q0150" in lines(pilot))
        assert (top.selected or "newer", top.cursor_row) == ("newer", 0)


async def test_only_the_lines_that_changed_are_drawn_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.pause(0.8)
        drawn: list[int] = []
        widget = table(pilot)
        real = widget._drawn
        monkeypatch.setattr(widget, "_drawn", lambda number: (drawn.append(number), real(number))[1])
        home.run("atwork").write_json("labels.json", {"note": "", "tags": ["x"]})
        await until(pilot, lambda: column(pilot, "tags")["atwork"] == "x")
        await pilot.pause(0.3)
        assert set(drawn) <= {1}
        drawn.clear()
        await pilot.press("down")
        await pilot.pause(0.1)
        assert set(drawn) == {0, 1}


@SIZES
async def test_the_filter_is_applied_as_one_types_and_its_mistakes_are_shown(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("slash", *"pgd20>57")
        await opened(pilot, 2)
        assert "2 fit the filter" in title(pilot)
        assert "esc clears it" in screen_text(pilot)
        await pilot.press(*" adn")
        await until(pilot, lambda: "^ expected" in screen_text(pilot))
        shown = screen_text(pilot).split("\n")
        at = next(number for number, line in enumerate(shown) if "^ expected" in line)
        assert shown[at].index("^") == shown[at - 1].index("adn")  # the caret stands below the mistake
        assert table(pilot).row_count == 2 and "the filter" not in title(pilot)
        await pilot.press("enter")
        assert pilot.app.focused is table(pilot)
        await pilot.press("escape")
        await opened(pilot)
        assert "expected" not in screen_text(pilot)
        assert pilot.app.screen.query_one("#filter", Input).value == ""
        await pilot.press("slash", *"seed>90", "enter")
        await until(pilot, lambda: "No run fits the filter" in screen_text(pilot))
        await pilot.press("s")
        await until(pilot, lambda: "no run under the cursor" in told(pilot))


async def test_sorted_by_keys_and_by_headings_and_remembered(home: Home) -> None:
    app = Watched(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        heading = screen_text(pilot).split("\n")[1]
        await pilot.click(table(pilot), offset=(heading.index("nat."), 0))
        await until(pilot, lambda: "nat.▼" in screen_text(pilot))
        await until(pilot, lambda: list(lines(pilot))[:2] == ["train1", "train0"])
        assert table(pilot).cursor_row == 0
        await pilot.click(table(pilot), offset=(heading.index("nat."), 0))
        await until(pilot, lambda: "nat.▲" in screen_text(pilot) and list(lines(pilot))[:2] == ["base1", "base0"])
        await pilot.press("greater_than_sign")
        await until(pilot, lambda: list(lines(pilot))[:4] == ["train1", "train0", "base1", "base0"])
        assert "robust▼" in screen_text(pilot)
        assert "by pgd20 ▼" in title(pilot)  # one attack: others are not comparable with it
        await pilot.press("less_than_sign", "less_than_sign")
        await until(pilot, lambda: "epoch▼" in screen_text(pilot) and next(iter(lines(pilot))) == "atwork")
        await pilot.press("minus")
        await until(pilot, lambda: "epoch▲" in screen_text(pilot) and next(iter(lines(pilot))) == "waiting")
        await pilot.click(table(pilot), offset=(heading.index("ETA"), 0))
        await until(pilot, lambda: "cannot be sorted by ETA" in told(pilot))
    assert Watched(home).settings.sort == "epoch"


async def test_groups_are_opened_closed_and_summed_up(home: Home) -> None:
    app = Watched(home)
    async with app.run_test(size=(200, 60)) as pilot:
        await opened(pilot)
        await pilot.press("g", "g", "g")
        await until(pilot, lambda: table(pilot).row_count == 4 and "all but the seed" in title(pilot))
        groups = lines(pilot)
        one = next(name for name in groups if name.startswith("group digits-trades+train"))
        assert "2 runs" in column(pilot, "name")[one] and "▸" in column(pilot, "name")[one]
        assert column(pilot, "status")[one] == "✔2"
        assert column(pilot, "method")[one] == "trades +TRAIN"
        assert sorted(set(column(pilot, "method").values())) == ["trades", "trades +TRAIN"]
        assert column(pilot, "natural")[one] == "96.0±0.0"
        assert column(pilot, "robust")[one] == "59.0±1.4 pgd20"
        while table(pilot).here != one:
            await pilot.press("down")
        await until(pilot, lambda: "2 runs: 2 done" in screen_text(pilot) and "59.0±1.4" in screen_text(pilot))
        await pilot.press("right")
        await until(pilot, lambda: table(pilot).row_count == 6)
        assert "▾" in column(pilot, "name")[one]
        assert table(pilot).here == one
        await pilot.press("down", "down")
        assert table(pilot).selected == "train0"
        await pilot.press("left")  # from a run, its group is closed
        await until(pilot, lambda: table(pilot).row_count == 4 and table(pilot).here == one)
        await pilot.press("enter")
        await until(pilot, lambda: table(pilot).row_count == 6)
        await pilot.press("enter")
        await until(pilot, lambda: table(pilot).row_count == 4)
        assert app.settings.group == "group"
        await pilot.press("g")
        await until(pilot, lambda: table(pilot).row_count == 6)


async def test_marks_decide_what_is_acted_on(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainctl.tui.screens import home as place

    acted: list[list[str]] = []
    monkeypatch.setitem(place.ACTS, "stop", lambda screen, home, runs: acted.append([run.id for run in runs]))
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("s")
        await pilot.press("space", "space", "s")
        await until(pilot, lambda: len(acted) == 2)
        assert "2 marked" in title(pilot)
        assert screen_text(pilot).count("✓") == 2
        await pilot.press("c")
        await until(pilot, lambda: isinstance(pilot.app.screen, CompareScreen))
        assert pilot.app.screen._runs == ("atwork", "waiting")
        pilot.app.pop_screen()
        await until(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))
        await pilot.press("up", "space")
        assert "1 marked" in title(pilot)
        await pilot.press("escape")
        assert "marked" not in title(pilot)
        await pilot.press("slash", *"method=trades and seed<2", "enter", "a")
        await until(pilot, lambda: "4 marked" in title(pilot))
        await pilot.press("a")
        assert "marked" not in title(pilot)
        await pilot.press("escape", "g", "g", "g")
        await until(pilot, lambda: table(pilot).row_count == 4)
        await pilot.press("end", "s")  # of the group under the cursor
        await until(pilot, lambda: len(acted) == 3)
        await pilot.press("space")
        await until(pilot, lambda: "2 marked" in title(pilot))
        shutil.rmtree(home.run("base0").path)
        await until(pilot, lambda: "1 marked" in title(pilot))  # what has gone is no longer marked
    assert acted == [["waiting"], ["atwork", "waiting"], ["base0", "base1"]]


async def test_archived_runs_are_hidden_until_they_are_asked_for(home: Home) -> None:
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press("end", "space", "A")
        await until(pilot, lambda: table(pilot).row_count == 5 and "marked" not in title(pilot))
        await pilot.press("h")
        await opened(pilot, 6)
        assert "archived too" in title(pilot)
        assert "(archived)" in column(pilot, "name")["base0"]
        await pilot.press("h", "a")
        await until(pilot, lambda: "5 marked" in title(pilot))
        await pilot.press("A")
        await until(pilot, lambda: "All runs are archived; h shows them." in screen_text(pilot))


async def test_columns_are_chosen_moved_and_remembered(home: Home) -> None:
    app = Watched(home)
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        before = [shown.key for shown in table(pilot).shown_columns]
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, ColumnsScreen))
        options = app.screen.query_one(OptionList)
        options.highlighted = 1
        await pilot.press("shift+up", "down", "space", "escape")
        assert app.settings.columns == ()
        await pilot.press("o")
        await until(pilot, lambda: isinstance(app.screen, ColumnsScreen))
        app.screen.query_one(OptionList).highlighted = 1
        await pilot.press("shift+up", "down", "space", "enter")  # the name in front, no status
        await until(pilot, lambda: app.settings.columns[:2] == ("name", "method"))
        await until(pilot, lambda: table(pilot).shown_columns[0].key == "name")
        assert "status" not in [shown.key for shown in table(pilot).shown_columns]
        assert Watched(home).settings.columns == app.settings.columns
        await pilot.press("o", "r")
        await until(pilot, lambda: [shown.key for shown in table(pilot).shown_columns] == before)
        assert app.settings.columns == ()


async def test_the_mouse_moves_and_opens(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.click(table(pilot), offset=(5, 3))
        assert table(pilot).selected == "train1"
        await pilot.click(table(pilot), offset=(5, 20))  # below the last run
        assert table(pilot).selected == "train1"
        await pilot.click(table(pilot), offset=(5, 4), times=2)
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        assert "train0" in screen_text(pilot) or "digits-trades+train-s0" in screen_text(pilot)


@SIZES
async def test_every_key_of_the_runs_does_what_it_says(home: Home, size: tuple[int, int]) -> None:
    app = Watched(home)
    make_run(home, "ended", status="failed", created=1050.0, group="e", pair="e")
    async with app.run_test(size=size) as pilot:
        await opened(pilot, 7)
        walked: list[tuple[str, str]] = []

        async def press(place: str, pressed: str, seen: Callable[[], bool]) -> None:
            walked.append((place, pressed))
            await pilot.press(pressed.split(",")[0])
            await until(pilot, seen)

        def on(screen: type) -> Callable[[], bool]:
            return lambda: isinstance(app.screen, screen)

        await press(keys.HOME, "slash", lambda: isinstance(app.focused, Input))
        await press(keys.HOME, "escape", lambda: app.focused is table(pilot))
        for pressed, screen in (
            ("s", ConfirmScreen), ("R", ConfirmScreen), ("number_sign", PromptScreen), ("n", PromptScreen),
            ("D,delete", ConfirmScreen), ("o", ColumnsScreen), ("enter", RunScreen), ("c", CompareScreen),
        ):  # fmt: skip
            if pressed == "s":
                await pilot.press("down")  # the queued run: the newest has ended
            await press(keys.HOME, pressed, on(screen))
            await pilot.press("escape")
            await until(pilot, on(HomeScreen))
            if pressed == "s":
                await pilot.press("up")
        from trainctl.tui.screens.launch import LaunchScreen
        from trainctl.tui.screens.machine import MachineScreen

        for pressed, other in (("l", LaunchScreen), ("m", MachineScreen)):
            await press(keys.HOME, pressed, on(other))
            app.pop_screen()
            await until(pilot, on(HomeScreen))
        await press(keys.HOME, "space", lambda: "1 marked" in title(pilot))
        await press(keys.HOME, "a", lambda: "marked" not in title(pilot))
        await press(keys.HOME, "minus", lambda: "created ▲" in title(pilot))
        await press(keys.HOME, "less_than_sign", lambda: "by created" not in title(pilot))
        await press(keys.HOME, "greater_than_sign", lambda: "by " in title(pilot))
        await press(keys.HOME, "h", lambda: app.screen._view.archived)
        await press(keys.HOME, "g", lambda: table(pilot).row_count == 1)
        await press(keys.HOME, "right", lambda: table(pilot).row_count == 8)
        await press(keys.HOME, "left", lambda: table(pilot).row_count == 1)
        await pilot.press("g", "g", "g")
        await opened(pilot, 7)
        await pilot.press("home")
        before = len(app.told)
        await press(keys.HOME, "r", lambda: len(app.told) > before)
        await press(keys.HOME, "A", lambda: "archived" in told(pilot))
        await press(keys.EVERYWHERE, "t", lambda: app.theme == "trainctl-light")
        await press(keys.EVERYWHERE, "f2", lambda: app.low_bandwidth)
        await press(keys.EVERYWHERE, "question_mark", on(HelpScreen))
        await pilot.press("escape")
        await press(keys.EVERYWHERE, "ctrl+p", on(CommandPalette))
        await pilot.press("escape")
        await press(keys.EVERYWHERE, "q", lambda: not app.is_running or app._exit)
        wanted = {(key.place, key.keys) for key in keys.KEYS if key.place in (keys.HOME, keys.EVERYWHERE)}
        assert set(walked) == wanted


@SIZES
async def test_help_lists_every_key_those_of_the_place_first(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=(size[0], 200)) as pilot:
        await opened(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        shown = " ".join(screen_text(pilot).replace("│", " ").split())
        assert [key.help for key in keys.KEYS if key.help[:20] not in shown] == []  # long ones are wrapped
        assert -1 < shown.find(keys.HOME) < shown.find(keys.EVERYWHERE)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


async def test_an_error_on_a_thread_is_a_notice_told_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RunsFeed.overview
    asked = []

    def broken(self: RunsFeed, question: Question) -> Overview | None:
        asked.append(question)
        raise RuntimeError("the [disk] is away")

    monkeypatch.setattr(RunsFeed, "overview", broken)
    async with Watched(home).run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "the [disk] is away" in screen_text(pilot))
        await until(pilot, lambda: len(asked) >= 3)
        assert told(pilot).count("RuntimeError: the [disk] is away") == 1
        monkeypatch.setattr(RunsFeed, "overview", real)
        await opened(pilot)
