"""The screen of one run, driven by its keys on real run folders, and what feeds it."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dashboard import SIZES, Watched, made, screen_text, told, until
from folders import append, make_run
from textual.pilot import Pilot
from textual.widgets import Static, TabbedContent

from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.launch.follow import Follower
from trainctl.registry import ingest, query
from trainctl.registry.watch import Watch
from trainctl.tui import keys
from trainctl.tui.feed import records
from trainctl.tui.feed.run import Ask, RunFeed, RunView, charts, kinds
from trainctl.tui.feed.selected import selected
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.help import HelpScreen
from trainctl.tui.screens.live import LiveScreen
from trainctl.tui.screens.prompt import PromptScreen
from trainctl.tui.screens.run import RunScreen
from trainctl.tui.widgets.about import heading
from trainctl.tui.widgets.chart import Chart
from trainctl.tui.widgets.charts import Charts
from trainctl.tui.widgets.log import LogView

STEPS = {"epoch": 1, "stage": "train"}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = made(tmp_path / "home")
    train = home.run("train1")
    train.write_json("labels.json", {"tags": ["lr-test"], "note": "[b]not bold[/b] \x1b[31m"})
    checkpoint(home, "train1", "best", {"rule": "best pgd10 on validation", "progress": {"epoch": 3, "batch": 0}})
    train.attempts.write_text('{"t": 1012.0, "pid": 7, "host": "box", "resumed_from": null}\n{"t": 1030.0}\nnonsense\n')
    (train.path / "attempts").mkdir()
    (train.path / "attempts" / "001-exit.json").write_text('{"status": "preempted", "reason": "SIGTERM", "t": 1020.0}')
    return home


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask more often, so that tests wait less."""
    monkeypatch.setattr(LiveScreen, "period", 0.2)


def checkpoint(home: Home, run: str, which: str, state: dict[str, Any]) -> None:
    header = json.dumps({"__metadata__": {"state": json.dumps(state)}}).encode()
    home.run(run).checkpoints.mkdir(exist_ok=True)
    home.run(run).checkpoint(which).write_bytes(struct.pack("<Q", len(header)) + header + bytes(2_500_000))


def view(home: Home, run: str, **ask: Any) -> RunView:
    found = feed(home, run).run(Ask(**ask))
    assert found is not None
    return found


def feed(home: Home, run: str) -> RunFeed:
    ingest.refresh(home)
    return RunFeed(home, run)


async def opened(pilot: Pilot[None], home: Home, run: str) -> RunScreen:
    screen = RunScreen(home, run)
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: screen._view is not None and bool(screen._view.selected))
    return screen


def shown_charts(screen: RunScreen) -> Iterator[Chart]:
    return (chart for chart in screen.query(Chart) if chart.display)


# --- the feed ---------------------------------------------------------------------------------------------------


def test_charts_put_what_belongs_together_into_one() -> None:
    metrics = {"loss", "loss_topology", "loss_robust", "loss_ce", "lr", "l_tp", "train_natural", "seconds", "odd",
               "validation_pgd10", "validation_natural", "train_adversarial", "images_per_second",
               "selection_seconds"}  # fmt: skip
    found = {heading: names for heading, _, names in charts(metrics) if names}
    assert list(found) == [
        "losses", "accuracy, validation", "accuracy, training", "L_TP", "learning rate", "images per second",
        "time of an epoch", "odd",
    ]  # fmt: skip
    assert found["losses"] == ["loss", "loss_robust", "loss_topology", "loss_ce"]
    assert found["time of an epoch"] == ["seconds", "selection_seconds"]
    assert sorted(name for names in found.values() for name in names) == sorted(metrics)


def test_steps_and_time_go_through_both_stages_and_epochs_through_one() -> None:
    names = {"pretrain-step": ["loss_standard"], "step": ["loss", "loss_standard"], "epoch": ["loss", "seconds"]}
    assert kinds(names, "loss_standard", "step") == ["pretrain-step", "step"]
    assert kinds(names, "loss", "time") == ["step"]
    assert kinds(names, "seconds", "step") == ["epoch"]
    assert kinds(names, "loss_standard", "epoch") == []
    assert kinds({"pretrain-epoch": ["loss_standard"]}, "loss_standard", "epoch") == ["pretrain-epoch"]


def test_a_run_stands_beside_its_twin_over_each_x(home: Home) -> None:
    found = view(home, "train1")
    assert found.twin is not None
    assert (found.twin.id, found.unit, found.extent) == ("base1", "epoch", (1.0, 3.0))
    losses = found.panels[0]
    assert [(curve.label, curve.other) for curve in losses.curves] == [("total", False), ("total", True)]
    assert [bucket.mean for bucket in losses.curves[0].buckets] == [2.0, 1.0, pytest.approx(2 / 3)]
    by_step = view(home, "train1", unit="step")
    assert by_step.extent == (5.0, 30.0)
    assert [bucket.mean for bucket in by_step.panels[0].curves[0].buckets] == [3 / s for s in range(5, 35, 5)]
    by_time = view(home, "train1", unit="time", twin=False)
    assert by_time.extent == (1.0, 9.0)  # seconds since the event of the start
    assert not any(curve.other for panel in by_time.panels for curve in panel.curves)
    part = view(home, "train1", unit="step", left=9.0, right=16.0)
    assert [bucket.first for bucket in part.panels[0].curves[0].buckets] == [10.0, 15.0]
    assert part.extent == (5.0, 30.0)


def test_what_is_known_already_is_not_answered_again(home: Home) -> None:
    ingest.refresh(home)
    found = RunFeed(home, "atwork", Watch(home))
    assert found.run(Ask()) is not None
    assert found.run(Ask()) is None
    assert found.run(Ask(unit="step")) is not None
    append(home.run("atwork"), [("step", {"step": 95, "loss": 9.0, **STEPS})], 1100.0)
    later = found.run(Ask(unit="step"))
    assert later is not None
    assert later.panels[0].curves[0].buckets[-1].mean == 9.0
    assert later.selected.losses == "loss 9.000"


def test_a_twin_is_the_newest_of_the_other_side_with_the_same_seed(home: Home) -> None:
    make_run(home, "train1b", seed=1, topology=True, created=1999.0)
    twin = view(home, "base1").twin
    assert twin is not None
    assert twin.id == "train1b"
    assert view(home, "atwork").twin is None


def test_a_run_that_has_ended_is_at_no_stage(home: Home) -> None:
    """Also where `trainctl eval` has written one since."""
    run = make_run(home, "stopped", status="killed")
    append(run, [("stage", {"stage": "evaluate"})], 5000.0)
    ingest.refresh(home)
    (row,) = query.runs(home, ["stopped"])
    follower = Follower(run)
    follower.poll()
    shown = selected(home, row, follower.progress, 0)
    assert shown.stage and shown.stage not in heading(shown, None, "trainctl-dark").plain
    working = replace(shown, run=replace(row, status="running"))
    assert shown.stage in heading(working, None, "trainctl-dark").plain


def test_a_run_that_has_gone_is_an_error_that_says_so(home: Home) -> None:
    with pytest.raises(UsageError, match="nobody has gone"):
        feed(home, "nobody").run(Ask())


@pytest.mark.parametrize("tab", ["curves", "log", "recipe", "results", "system"])
def test_damaged_folders_are_shown_as_far_as_they_can_be_read(home: Home, tab: str) -> None:
    (home.run("base0").path / "recipe.toml").write_bytes(b"\xff\x00 = [")
    home.run("base0").write_json("env.json", {"git": 3, "packages": [], "host": {"a": "\x1b[31m"}})
    home.run("base1").events.write_bytes(b"{nonsense\n" + json.dumps({"event": "epoch", "epoch": "x"}).encode() + b"\n")
    home.run("base1").checkpoints.mkdir()
    home.run("base1").checkpoint("best").write_bytes(b"\xff" * 100)
    home.run("base1").checkpoint("last").write_bytes(b"")
    home.run("base1").attempts.write_bytes(b"\xff\n[]\n{}\n")
    for run in ("base0", "base1", "waiting"):
        assert view(home, run, tab=tab).selected.run.id == run
    assert "\x1b" not in str(view(home, "base0", tab="system"))


def test_records_say_what_is_in_the_folder(home: Home) -> None:
    results = view(home, "train1", tab="results").results
    assert results is not None
    best = {each.metric: each for each in results.measured if each.checkpoint == "best"}
    assert best["pgd20"].value == 60.0
    assert "linf, ε 0.25, step 0.025, 20 steps" in best["pgd20"].threat
    [file] = results.checkpoints
    assert (file.name, file.at, file.rule) == ("best", "epoch 2", "best pgd10 on validation")
    assert file.size > 2_500_000
    assert [(each.process, each.ended) for each in results.attempts] == [("box 7", "preempted · SIGTERM"), ("", "done")]
    recipe = view(home, "train1", tab="recipe").recipe
    assert recipe is not None
    assert dict(recipe.facts)["note"].startswith("[b]not bold[/b]")
    assert dict(recipe.facts)["command"] == "trainctl run digits-trades --seeds 1"
    assert 'dataset = "digits"' in recipe.text
    environment = view(home, "train1", tab="system").environment
    assert environment is not None
    assert "torch 2.14.1" in dict(environment.facts)["packages"]


@pytest.mark.parametrize(
    ("progress", "expected"),
    [({"epoch": 4, "batch": 0}, "epoch 3"), ({"epoch": 4, "batch": 2}, "epoch 4, batch 2"), (None, ""),
     ({"epoch": 2, "batch": 0, "stage": "pretrain"}, "pretrain epoch 1"), ({"epoch": "x"}, "epoch 0")],
)  # fmt: skip
def test_a_checkpoint_is_told_by_its_place(progress: Any, expected: str) -> None:
    assert records._position(progress) == expected


# --- the screen -------------------------------------------------------------------------------------------------


@SIZES
async def test_a_run_is_drawn_over_its_twin_and_each_tab_says_its_part(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        screen = await opened(pilot, home, "train1")
        await until(pilot, lambda: "╍ base" in screen_text(pilot))
        text = screen_text(pilot)
        assert "━ +TRAIN" in text
        assert "losses" in text and "accuracy, validation" in text
        assert "x: epoch" in text
        assert "✔ done" in text
        assert len(list(shown_charts(screen))) == {80: 2, 120: 4, 200: 4}[size[0]]
        await pilot.press("3")
        await until(pilot, lambda: "trainctl run digits-trades --seeds 1" in screen_text(pilot))
        assert "[b]not bold[/b]" in screen_text(pilot)
        assert "\x1b" not in screen_text(pilot)
        await pilot.press("4")
        await until(pilot, lambda: "2.5 MB" in screen_text(pilot))
        assert "ε 0.25" in screen_text(pilot)
        await pilot.press("5")
        await until(pilot, lambda: "The machine" in screen_text(pilot))
        await until(pilot, lambda: "3.11.7" in screen_text(pilot))
        await pilot.press("2")
        await until(pilot, lambda: "It has printed nothing yet." in screen_text(pilot))


@SIZES
async def test_every_key_does_what_it_says(home: Home, size: tuple[int, int]) -> None:
    app = Watched(home)
    home.run("train1").log.write_text("one\ntwo\none again\n")
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot, home, "train1")
        await until(pilot, lambda: "╍ base" in screen_text(pilot))
        charts = screen.query_one(Charts)
        walked = []

        async def press(key: str, seen: Callable[[], bool]) -> None:
            walked.append(key)
            await pilot.press(key.partition(",")[0])
            await until(pilot, seen)

        await press("tab", lambda: charts.chart.title == "accuracy, validation" and charts.chart.has_focus)
        await press("shift+tab", lambda: charts.chart.title == "losses" and charts.chart.has_focus)
        await press("enter,z", lambda: len(list(shown_charts(screen))) == 1)
        await pilot.press("z")
        await press("x", lambda: "x: step" in screen_text(pilot))
        await press("l", lambda: charts.chart.log_scale)
        await press("m", lambda: "smoothed over 1%" in screen_text(pilot))
        await press("left", lambda: charts.view.cursor == 30.0)
        assert "Δ total +0" in screen_text(pilot) or "Δ +0" in screen_text(pilot)
        await pilot.press("left")
        await press("right", lambda: charts.view.cursor == 30.0)
        await press("plus,equals_sign", lambda: (charts.view.left, charts.view.right) == (17.5, 30.0))
        await press("shift+left", lambda: charts.view.left == 14.375)
        await press("shift+right", lambda: charts.view.left == 17.5)
        await press("minus", lambda: charts.view.left is None)
        await press("0", lambda: charts.view.cursor is None)
        await press("o", lambda: "╍ base" not in screen_text(pilot))
        await pilot.press("o")
        for key, tab in (("2", "log"), ("3", "recipe"), ("4", "results"), ("5", "system"), ("1", "curves")):
            await press(key, lambda tab=tab: screen.query_one(TabbedContent).active == tab)
        assert charts.chart.has_focus
        await pilot.press("2")
        await until(pilot, lambda: "one again" in screen_text(pilot))
        await press("slash", lambda: screen.query_one(LogView).has_class("-searching"))
        await pilot.press(*"one", "enter")
        for key in ("n", "N", "f", "w"):  # what they do is tested with the log
            await press(key, lambda: isinstance(app.screen, RunScreen))
        await pilot.press("escape", "1")
        walked.remove("n")
        await press("n", lambda: isinstance(app.screen, PromptScreen))
        await pilot.press("escape")
        await press("number_sign", lambda: isinstance(app.screen, PromptScreen))
        await pilot.press("escape")
        await press("s", lambda: "has ended already" in told(pilot))
        await press("r", lambda: "train1 is done" in told(pilot))
        await press("R", lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("n")
        await press("c", lambda: isinstance(app.screen, CompareScreen))
        await pilot.press("escape")
        await press("p", lambda: app.screen is not screen and isinstance(app.screen, RunScreen))
        await until(pilot, lambda: "digits-trades-s1" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await press("escape", lambda: not isinstance(app.screen, RunScreen))
        assert {*walked} == {key.keys for key in keys.KEYS if key.place == keys.RUN}


async def test_an_appended_step_shows_by_itself_and_nothing_new_draws_nothing(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    young = make_run(home, "young", status="running", epochs=9, created=1040.0, group="y", pair="y")
    young.events.write_text("")
    append(young, [("step", {"step": n, "loss": 1.0 / n, **STEPS}) for n in (10, 20, 30)], 1041.0)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, home, "young")
        await until(pilot, lambda: "x: step" in screen_text(pilot) and screen._view.extent == (10.0, 30.0))
        drawn: list[object] = []
        show = Charts.show
        monkeypatch.setattr(
            Charts, "show", lambda self, *given, **how: (drawn.append(given), show(self, *given, **how))
        )
        await pilot.pause(0.8)
        assert drawn == []
        append(young, [("step", {"step": 40, "loss": 7.0, **STEPS})], 1050.0)
        await until(pilot, lambda: "loss 7.000" in str(screen.query_one("#facts", Static).content))
        await until(pilot, lambda: screen._view.extent == (10.0, 40.0))
        assert len(drawn) == 1
        await pilot.press("p", "c", "o")
        await until(pilot, lambda: told(pilot).count("no other run of its pair") == 3)


async def test_a_run_without_a_step_says_so_and_one_that_has_gone_too(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await opened(pilot, home, "waiting")
        await until(pilot, lambda: "No step is logged yet" in screen_text(pilot))
        await pilot.press("left", "plus", "m", "tab", "enter", "x")
        (home.run("waiting").path / "run.json").unlink()
        await until(pilot, lambda: "waiting has gone" in told(pilot))
        assert told(pilot).count("gone") == 1


async def test_the_palette_and_the_help_know_the_keys(home: Home) -> None:
    app = Watched(home)
    async with app.run_test(size=(120, 60)) as pilot:
        screen = await opened(pilot, home, "train1")
        commands = {command.title: command for command in app.get_system_commands(screen)}
        await commands["Results (4)"].callback()
        await until(pilot, lambda: screen.query_one(TabbedContent).active == "results")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
