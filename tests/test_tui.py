"""The dashboard, driven by its keys on real run folders."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dashboard import SIZES, Watched, lines, made, opened, screen_text, select, table, told, until
from folders import append, make_run
from textual.command import CommandPalette
from textual.widgets import Input, Log, Static, TabbedContent

from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import scheduler
from trainctl.registry.filters import looks_like
from trainctl.tui import keys
from trainctl.tui.feed import acts, log, runs
from trainctl.tui.feed.run import RunFeed
from trainctl.tui.feed.runs import RunsFeed
from trainctl.tui.screens.compare import CompareScreen, ExportScreen
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.home import HomeScreen
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


@SIZES
async def test_an_empty_home_says_what_to_do_next(tmp_path: Path, size: tuple[int, int]) -> None:
    async with Watched(Home(tmp_path).create()).run_test(size=size) as pilot:
        await until(pilot, lambda: "trainctl run digits-trades --pair" in screen_text(pilot))
        await pilot.press("enter", "s", "r")
        await until(pilot, lambda: "no run under the cursor" in told(pilot))
        make_run(Home(tmp_path), "first")
        await opened(pilot, 1)
        await until(pilot, lambda: "digits-trades --pair" not in screen_text(pilot))


@SIZES
async def test_runs_stand_newest_first_with_their_numbers(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        shown = lines(pilot)
        assert list(shown) == ["waiting", "atwork", "train1", "train0", "base1", "base0"]
        method = "trades +TRAIN" if size[0] > 110 else "trades+T"
        assert shown["train1"] == ["✔ done", "digits-trades+train", method, "1", "3/3", "", "96.0", "60.0 pgd20"]
        assert shown["atwork"][:2] == ["● running", "[red]me[/red]"]
        assert shown["atwork"][4:7] == ["8/9", "0:02", "90.0v"]  # one epoch of 2 s is left; on the validation set
        assert shown["waiting"][0] == "○ queued"
        text = screen_text(pilot)
        assert "6 runs · 1 running · 1 queued" in text
        assert all(len(line) <= size[0] for line in text.split("\n"))
        assert "digits-trades+train" in text
        assert "60.0 pgd20" in text


@SIZES
async def test_the_panel_follows_the_cursor(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        text = screen_text(pilot)
        assert "[red]me[/red]-s2" in text
        assert "epoch 8/9" in text
        assert "[bold]loss[/bold] 0.5" in text  # neither markup nor colour codes
        assert "10%" not in text.replace("100%", "")
        assert "train 88.0" in text
        assert "validation_natural 90" in text


async def test_a_new_line_in_the_events_shows_by_itself(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        values = {
            "loss": 0.25,
            "loss_robust": 0.125,
            "loss_topology": 0.125,
            "validation_natural": 77.5,
            "seconds": 2.0,
        }
        event = {"epoch": 9, "epochs": 9, "step": 90, "stage": "train", **values}
        append(home.run("atwork"), [("stage", {"stage": "train"}), ("epoch", event)], 2000.0)
        await until(pilot, lambda: lines(pilot)["atwork"][4] == "9/9")
        assert lines(pilot)["atwork"][6] == "77.5v"
        await until(pilot, lambda: "loss 0.250 = robust 0.125 + topology 0.125" in screen_text(pilot))
        assert table(pilot).selected == "atwork"
        home.run("atwork").write_json("exit.json", {"status": "oom", "code": 1, "reason": "out of memory"})
        await until(pilot, lambda: lines(pilot)["atwork"][0] == "✘ oom")
        await until(pilot, lambda: "out of memory" in screen_text(pilot))


async def test_one_question_a_period_is_asked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveScreen, "period", 0.5)
    asked = []
    real = RunsFeed.overview
    monkeypatch.setattr(RunsFeed, "overview", lambda *given: (asked.append(given), real(*given))[1])
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.pause(0.6)
        before = len(asked)
        await pilot.pause(2.0)
        assert 2 <= len(asked) - before <= 5
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        before = len(asked)
        await pilot.pause(2.0)
        assert len(asked) - before <= 1  # nothing is asked behind another screen


async def test_the_panel_fills_its_room_with_the_log(home: Home) -> None:
    home.run("waiting").log.write_text("".join(f"line {number}\n" for number in range(30)))
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "line 26" in screen_text(pilot) and "line 29" in screen_text(pilot))
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: "line 21" in screen_text(pilot) and "line 29" in screen_text(pilot))


async def test_a_run_that_is_removed_leaves_the_table(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        (home.run("waiting").path / "run.json").unlink()
        await opened(pilot, 5)
        assert table(pilot).selected == "atwork"  # the cursor stays on its run


@SIZES
async def test_the_filter_is_applied_as_one_types_and_its_mistakes_are_shown(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("slash", *"pgd20>57")
        assert looks_like("pgd20>57")
        await opened(pilot, 2)
        assert "2 fit the filter" in screen_text(pilot)
        await pilot.press(*" adn")
        await until(pilot, lambda: "filter: expected" in screen_text(pilot))
        assert table(pilot).row_count == 2
        await pilot.press("enter")
        assert pilot.app.focused is table(pilot)
        await pilot.press("escape")
        await opened(pilot)
        assert "filter: expected" not in screen_text(pilot)
        assert pilot.app.screen.query_one("#filter", Input).value == ""


async def test_a_filter_without_a_run_leaves_an_empty_table(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("slash", *"seed>90", "enter")
        await opened(pilot, 0)
        await pilot.press("s")
        await until(pilot, lambda: "no run under the cursor" in told(pilot))


@SIZES
async def test_every_key_of_the_table_does_what_it_says(home: Home, size: tuple[int, int], tmp_path: Path) -> None:
    app = Watched(home)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        walked = []

        async def press(place: str, key: str, seen: Callable[[], bool]) -> None:
            walked.append((place, key))
            await pilot.press(key)
            await until(pilot, seen)

        await press(keys.HOME, "slash", lambda: isinstance(app.focused, Input))
        await pilot.press("escape")
        await press(keys.HOME, "s", lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("escape")
        await press(keys.HOME, "r", lambda: "waiting is queued" in told(pilot))
        await press(keys.HOME, "enter", lambda: isinstance(app.screen, RunScreen))
        await until(pilot, lambda: "waiting" in screen_text(pilot))
        for key, tab in (("2", "log"), ("3", "recipe"), ("1", "curves")):
            await press(keys.RUN, key, lambda tab=tab: app.screen.query_one(TabbedContent).active == tab)
        await press(keys.RUN, "s", lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("n")
        before = len(app.told)
        await press(keys.RUN, "r", lambda: len(app.told) > before)
        await press(keys.RUN, "escape", lambda: isinstance(app.screen, HomeScreen))
        await press(keys.HOME, "c", lambda: isinstance(app.screen, CompareScreen))
        await until(pilot, lambda: "digits-trades" in screen_text(pilot))
        await press(keys.COMPARE, "b", lambda: "last checkpoints" in screen_text(pilot))
        await press(keys.COMPARE, "e", lambda: isinstance(app.screen, ExportScreen))
        await pilot.press("escape")
        await press(keys.COMPARE, "escape", lambda: isinstance(app.screen, HomeScreen))
        await press(keys.EVERYWHERE, "f2", lambda: app.settings.low_bandwidth)
        await press(keys.EVERYWHERE, "t", lambda: app.theme == "trainctl-light")
        await press(keys.EVERYWHERE, "question_mark", lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        await press(keys.EVERYWHERE, "ctrl+p", lambda: isinstance(app.screen, CommandPalette))
        await pilot.press("escape")
        await press(keys.EVERYWHERE, "q", lambda: not app.is_running or app._exit)
        assert set(walked) == {(key.place, key.keys) for key in keys.KEYS}


@SIZES
async def test_help_lists_every_key(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=(size[0], 60)) as pilot:
        await opened(pilot)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        text = screen_text(pilot)
        assert [key.help for key in keys.KEYS if key.help not in text] == []
        await pilot.press("q")
        await until(pilot, lambda: isinstance(pilot.app.screen, HomeScreen))


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


@SIZES
async def test_a_run_is_drawn_over_its_twin(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        await opened(pilot)
        await select(pilot, "train1")
        await pilot.press("enter")
        await until(pilot, lambda: "━+TRAIN" in screen_text(pilot))
        text = screen_text(pilot)
        assert "╍base" in text
        assert "validation, natural" in text
        assert "epoch 3" in text
        await pilot.press("3")
        await until(pilot, lambda: "trainctl run digits-trades --seeds 1" in screen_text(pilot))
        about = str(pilot.app.screen.query_one("#about", Static).content)
        assert "best pgd20 60  n=360  attack=pgd norm=linf eps=0.25" in about
        assert 'dataset = "digits"' in about
        assert str(home.run("train1").path) in about


async def test_a_run_without_an_epoch_is_drawn_by_steps(home: Home) -> None:
    young = make_run(home, "young", status="running", epochs=9, created=1040.0, group="y", pair="y")
    young.events.write_text("")
    step: dict[str, Any] = {"epoch": 1, "stage": "train"}
    append(
        young, [("step", {"step": n, "loss": 1.0 / n, "loss_robust": 1.0 / n, **step}) for n in (10, 20, 30)], 1041.0
    )
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot, 7)
        await pilot.press("enter")
        await until(pilot, lambda: "step 30" in screen_text(pilot))


async def test_the_log_follows(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        await pilot.press("enter", "2")
        log = pilot.app.screen.query_one("#output", Log)
        await until(pilot, lambda: list(log.lines)[:3] == ["first line", "[bold]loss[/bold] 0.5", "100%"])
        with open(home.run("atwork").log, "a") as file:
            file.write("".join(f"line {number}\n" for number in range(50)) + "half a li")
        await until(pilot, lambda: "line 49" in screen_text(pilot))
        assert "half a li" not in list(log.lines)
        home.run("atwork").log.write_text("anew\n")
        await until(pilot, lambda: list(log.lines)[:1] == ["anew"])


async def test_equal_lines_of_a_log_are_all_shown_and_silence_is_said(home: Home) -> None:
    home.run("atwork").log.write_text("")
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await select(pilot, "atwork")
        assert "It has printed nothing yet." in screen_text(pilot)
        await pilot.press("enter", "2")
        log = pilot.app.screen.query_one("#output", Log)
        await until(pilot, lambda: list(log.lines)[:1] == ["It has printed nothing yet."])
        for count in (1, 2, 3):
            with open(home.run("atwork").log, "a") as file:
                file.write("same\n")
            await until(pilot, lambda count=count: [line for line in log.lines if line] == ["same"] * count)


async def test_a_run_that_has_gone_is_told(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        (home.run("waiting").path / "run.json").unlink()
        await until(pilot, lambda: "waiting has gone" in told(pilot))
        await pilot.press("escape")
        await opened(pilot, 5)


@SIZES
async def test_the_comparison_is_shown_and_exported(
    home: Home, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = Watched(home)
    async with app.run_test(size=size) as pilot:
        await opened(pilot)
        await pilot.press("c")
        await until(pilot, lambda: "+5.50" in screen_text(pilot))
        assert all(len(line) <= size[0] for line in screen_text(pilot).split("\n"))
        await pilot.press("e", "enter")
        await until(pilot, lambda: "written:" in told(pilot))
        assert str(tmp_path / "comparison.md") in told(pilot)
        assert "| +5.50" in Path("comparison.md").read_text()
        Path("comparison.md").write_text("mine")
        await pilot.press("e", "enter")
        await until(pilot, lambda: "enter once more replaces it" in screen_text(pilot))
        assert Path("comparison.md").read_text() == "mine"
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        assert "+5.50" in Path("comparison.md").read_text()
        await pilot.press("e", "ctrl+u", *"x.tex", "enter")
        await until(pilot, lambda: isinstance(app.screen, CompareScreen))
        assert r"\toprule" in Path("x.tex").read_text()
        await pilot.press("e", "ctrl+u", *"x.doc", "enter")
        await until(pilot, lambda: "must end in .md" in screen_text(pilot))
        await pilot.press("ctrl+u", *"no/x.md", "enter")
        await until(pilot, lambda: "cannot write" in screen_text(pilot))


async def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    make_run(home, "waiting", status="queued")
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot, 1)
        await pilot.press("c")
        await until(pilot, lambda: "Nothing to compare yet" in screen_text(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "nothing to export" in told(pilot))


async def test_stop_asks_and_only_yes_stops(home: Home) -> None:
    app = Watched(home)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("s")
        await until(pilot, lambda: "Cancel digits-trades-s3?" in screen_text(pilot))
        await pilot.press("enter")  # no has the focus
        await until(pilot, lambda: isinstance(app.screen, HomeScreen))
        assert home.run("waiting").status() == "queued"
        await pilot.press("s", "y")
        await until(pilot, lambda: "waiting is killed" in told(pilot))
        await until(pilot, lambda: lines(pilot)["waiting"][0] == "■ killed")
        await pilot.press("s")
        await until(pilot, lambda: "has ended already: killed" in told(pilot))


async def test_a_run_that_does_not_stop_can_be_killed(home: Home) -> None:
    stubborn = make_run(home, "stubborn", status="queued", created=1050.0, group="z", pair="z", name="stubborn-s0")
    program = (
        "import signal, sys, time; sys.path.insert(0, sys.argv[2]); from engine.rundir import RunDir, me; "
        "from pathlib import Path; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "r = RunDir(Path(sys.argv[1])); r.write_json('launch.json', me()); "
        "r.write_json('heartbeat.json', me()); time.sleep(60)"
    )
    with open(stubborn.log, "ab") as log:
        import fcntl

        fcntl.flock(log, fcntl.LOCK_EX)
        command = [sys.executable, "-c", program, str(stubborn.path), str(ROOT)]
        child = subprocess.Popen(command, stdout=log, start_new_session=True)
    try:
        app = Watched(home)
        async with app.run_test(size=(80, 24)) as pilot:
            await opened(pilot, 7)
            await until(pilot, lambda: lines(pilot)["stubborn"][0] == "● running")
            await pilot.press("s", "y")
            await until(pilot, lambda: lines(pilot)["stubborn"][0] == "◑ stopping")
            await pilot.press("s")
            await until(pilot, lambda: "Kill stubborn-s0 at once?" in screen_text(pilot))
            await pilot.press("tab", "enter")
            await until(pilot, lambda: "stubborn was killed" in told(pilot))
            await until(pilot, lambda: lines(pilot)["stubborn"][0] == "■ killed")
    finally:
        child.kill()
        child.wait()


async def test_resume_queues_again_and_says_what_it_cannot(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "broken", status="failed", created=1060.0, group="b", pair="b")
    served: list[Home] = []
    monkeypatch.setattr(scheduler, "ensure", served.append)  # the engine itself is not to start here
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot, 7)
        await pilot.press("r")
        await until(pilot, lambda: "broken is queued again" in told(pilot))
        await until(pilot, lambda: lines(pilot)["broken"][0] == "○ queued")
        assert served == [home]
        await select(pilot, "base0")
        await pilot.press("r")
        await until(pilot, lambda: "run base0 is done" in told(pilot))


async def test_an_error_on_a_thread_is_a_notice_told_once(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real = RunsFeed.overview
    asked = []

    def broken(self: RunsFeed, filtered: str, selected: str) -> runs.Overview:
        asked.append(filtered)
        raise RuntimeError("the [disk] is away")

    monkeypatch.setattr(RunsFeed, "overview", broken)
    app = Watched(home)
    async with app.run_test(size=(80, 24), notifications=True) as pilot:
        await until(pilot, lambda: "the [disk] is away" in screen_text(pilot))
        await until(pilot, lambda: len(asked) >= 3)
        assert told(pilot).startswith("RuntimeError: the [disk] is away\n") and told(pilot).count("away") == 1
        assert "in broken\n" in (home.path / "dashboard.log").read_text()
        monkeypatch.setattr(RunsFeed, "overview", real)
        await opened(pilot)


async def test_quitting_leaves_the_runs_alone(home: Home) -> None:
    before = {path: path.read_bytes() for path in home.runs.rglob("*") if path.is_file()}
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await pilot.press("q")
    assert {path: path.read_bytes() for path in home.runs.rglob("*") if path.is_file()} == before


def test_the_table_holds_the_newest_only(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "WINDOW", 2)
    seen = RunsFeed(home).overview("", "")
    assert [row.run.id for row in seen.rows] == ["waiting", "atwork"]
    assert (seen.fitting, seen.total) == (6, 6)


def test_damaged_folders_do_not_stop_the_others(home: Home) -> None:
    (home.run("base0").path / "recipe.toml").write_bytes(b"\xff\x00 = [")
    home.run("base1").events.write_bytes(b"{nonsense\n" + json.dumps({"event": "epoch", "epoch": "x"}).encode() + b"\n")
    home.run("train0").log.write_bytes(b"\xff\xfe\x00" * 10)
    assert len(RunsFeed(home).overview("", "train0").rows) == 6
    for run in ("base0", "base1", "train0"):
        assert RunFeed(home, run).run().selected.run.id == run


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"1%\r2%\nx\r\n", ["2%", "x"]),
        (b"\x1b[1mbold\x1b[0m\x07\n", ["bold\\x07"]),
        (b"", [""]),
    ],
)
def test_a_log_is_read_as_a_terminal_would_show_it(data: bytes, expected: list[str]) -> None:
    assert log.lines(data) == expected


def test_without_a_terminal_it_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainctl", "--home", str(tmp_path)], capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "the dashboard needs a terminal" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_twin_is_the_newest_of_the_other_side_with_the_same_seed(home: Home) -> None:
    make_run(home, "train1b", seed=1, topology=True, created=1999.0)
    assert [run.id for run in [RunFeed(home, "base1").run().twin] if run] == ["train1b"]
    assert RunFeed(home, "atwork").run().twin is None


def test_stop_names_what_became_of_a_run(tmp_path: Path) -> None:
    folder = make_run(Home(tmp_path), "waiting", status="queued")
    assert acts.stop(RunDir(folder.path)) == "waiting is killed"
