"""The screen of queue and machine, and the panel of one run's loads, driven by their keys."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from dashboard import SIZES, Watched, made, screen_text, told, until
from folders import append, make_run
from rich.text import Text
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import TabbedContent, TabPane

from engine.rundir import me
from trainctl.home import Home
from trainctl.launch import scheduler, slots
from trainctl.launch.gpus import Gpu, Gpus
from trainctl.launch.machine import Machine
from trainctl.tui import keys
from trainctl.tui.feed import machine as feed
from trainctl.tui.screens.confirm import ConfirmScreen
from trainctl.tui.screens.machine import MachineScreen
from trainctl.tui.screens.run import RunScreen
from trainctl.tui.themes import LIGHT
from trainctl.tui.widgets.gauges import BLOCKS, Gauge, draw, graph
from trainctl.tui.widgets.gauges import machine as gauges
from trainctl.tui.widgets.queue import QueueList
from trainctl.tui.widgets.system import SystemPanel

A100 = Gpu("0", "NVIDIA [A100]", 67.0, 10 << 30, 80 << 30, 54, 210.0, ((1, None),))


@pytest.fixture(autouse=True)
def _steady(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores and no GPU, whatever this machine has; asked more often, so that tests wait less."""
    monkeypatch.setattr(slots, "gpus", list)
    monkeypatch.setattr(slots, "cores", lambda: 2)
    monkeypatch.setattr(MachineScreen, "period", 0.25)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = made(tmp_path / "home")
    make_run(
        home, "large", status="queued", created=1031.0, group="e", pair="e", name="[b]large[/b]\x1b[31m-s0",
        recipe_table={"run": {"threads": 2}},
    )  # fmt: skip
    return home


async def opened(pilot: Pilot[None], home: Home) -> QueueList:
    pilot.app.push_screen(MachineScreen(home))
    await until(pilot, lambda: isinstance(pilot.app.screen, MachineScreen))
    found = pilot.app.screen.query_one(QueueList)
    await until(pilot, lambda: "Waiting (" in screen_text(pilot) and "cores taken" in screen_text(pilot))
    return found


def ids(found: QueueList) -> list[str]:
    return [option.id or "" for option in found.options if not option.disabled]


@SIZES
async def test_what_works_and_what_waits_is_seen(home: Home, size: tuple[int, int]) -> None:
    async with Watched(home).run_test(size=size) as pilot:
        found = await opened(pilot, home)
        assert ids(found) == ["atwork", "waiting", "large"]
        text = screen_text(pilot)
        assert "1 at work · 2 waiting · no scheduler: g starts one" in text
        assert "1 of 2 cores taken" in text
        assert "[red]me[/red]" in text and "8/9" in text and "0:02" in text
        assert "there is room, but no scheduler to start it" in text
        assert r"[b]large[/b]" in text and "\x1b" not in text
        assert "needs 2 of 2 cores; 2 taken by" in text
        assert "GiB free of" in text
        assert all(len(line) <= size[0] for line in text.split("\n"))
        if size[0] >= 120:
            assert str(me()["pid"]) in text and "threads" in text
        await until(pilot, lambda: " %" in screen_text(pilot))  # CPU of the run, known at the second look
        await pilot.press("down", "down")
        await until(pilot, lambda: "needs 2 of 2 cores; 2 taken by [red]me[/red]-s2 and" in screen_text(pilot))
        await until(pilot, lambda: "[31m-s0  large" in screen_text(pilot))


async def test_the_list_follows_and_the_cursor_stays_on_its_run(home: Home) -> None:
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        found = await opened(pilot, home)
        await pilot.press("down")
        assert found.selected == "waiting"
        make_run(home, "early", status="queued", created=1025.0, group="f", pair="f")
        await until(pilot, lambda: ids(found) == ["atwork", "early", "waiting", "large"])
        assert found.selected == "waiting"
        event = {"epoch": 9, "epochs": 9, "step": 90, "stage": "train", "seconds": 2.0}
        append(home.run("atwork"), [("epoch", event)], 2000.0)
        await until(pilot, lambda: "9/9" in screen_text(pilot))
        home.run("atwork").write_json("exit.json", {"status": "done"})
        await until(pilot, lambda: ids(found) == ["early", "waiting", "large"])
        assert found.selected == "waiting" and "0 at work · 3 waiting" in screen_text(pilot)


@SIZES
async def test_every_key_does_what_it_says(home: Home, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
    served: list[Home] = []
    monkeypatch.setattr(scheduler, "ensure", lambda home, *more: served.append(home))
    app = Watched(home)
    async with app.run_test(size=size) as pilot:
        found = await opened(pilot, home)
        titles = {command.title for command in app.get_system_commands(app.screen)}
        assert {f"{key.word} ({key.shown})" for key in keys.KEYS if key.place == keys.MACHINE} <= titles
        await pilot.press("g")
        await until(pilot, lambda: "a scheduler was started" in told(pilot))
        assert served == [home]
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, MachineScreen))
        await pilot.press("down", "down", "s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmScreen))
        await pilot.press("y")
        await until(pilot, lambda: ids(found) == ["atwork", "waiting"])
        assert home.run("large").status() == "killed"
        await pilot.click(QueueList, offset=(5, 4))  # the first line of those that wait
        assert found.selected == "waiting" and isinstance(app.screen, MachineScreen)
        await pilot.click(QueueList, offset=(5, 4), times=2)
        await until(pilot, lambda: isinstance(app.screen, RunScreen))
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, MachineScreen))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, MachineScreen))


@SIZES
async def test_an_empty_queue_says_what_to_do_next(tmp_path: Path, size: tuple[int, int]) -> None:
    home = Home(tmp_path).create()
    async with Watched(home).run_test(size=size) as pilot:
        pilot.app.push_screen(MachineScreen(home))
        await until(pilot, lambda: "Nothing is at work and nothing waits." in screen_text(pilot))
        assert "trainctl run digits-trades --pair --detach" in screen_text(pilot)
        assert "no scheduler needed" in screen_text(pilot)
        await pilot.press("enter", "s", "g")
        await until(pilot, lambda: "no run under the cursor" in told(pilot))
        await until(pilot, lambda: "nothing waits" in told(pilot))


class Gpus2:
    """As Nvml."""

    def look(self) -> Gpus:
        return Gpus((A100, Gpu("1", remark="lost: reset it")))


async def test_gpus_stand_in_a_line_each(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "gpus", lambda: ["0", "1"])
    home.run("atwork").write_json("launch.json", {**me(), "device": "cuda:0"})
    make_run(home, "pinned", status="queued", created=1040.0, recipe_table={"run": {"device": "cuda:0"}})
    feed.sampler(home).meter._nvml = Gpus2()  # type: ignore[assignment]
    async with Watched(home).run_test(size=(120, 40)) as pilot:
        pilot.app.theme = LIGHT.name
        await opened(pilot, home)
        text = screen_text(pilot)
        assert "67 % · 10.0/80 GiB · 54 °C · 210 W · 1 proc. · NVIDIA [A100]" in text
        assert "lost: reset it" in text
        assert next(line for line in text.split("\n") if "running" in line).split()[3:5] == ["GPU", "0"]
        assert "0 of 2 cores taken · 1 of 2 GPUs taken" in text
        assert "waits for GPU 0, taken by [red]me[/red]-s2" in text


class Panels(App[None]):
    """A panel in a tab, as on the screen of a run."""

    def __init__(self, home: Home, run: str) -> None:
        super().__init__()
        self.home, self.run_id = home, run

    def compose(self) -> ComposeResult:
        with TabbedContent():
            with TabPane("Other", id="other"):
                yield SystemPanel(self.home, "nothing")
            with TabPane("System", id="system"):
                yield SystemPanel(self.home, self.run_id, id="panel")


@SIZES
async def test_a_run_and_the_machine_are_measured_while_seen(
    home: Home, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    sampler = feed.sampler(home)
    real = sampler.system
    monkeypatch.setattr(sampler, "system", lambda run: (asked.append(run.id), real(run))[1])
    async with Panels(home, "atwork").run_test(size=size) as pilot:
        await until(pilot, lambda: "nothing" in asked)
        assert "atwork" not in asked  # nobody sees it
        pilot.app.query_one(TabbedContent).active = "system"
        await until(pilot, lambda: f"pid {me()['pid']}" in screen_text(pilot))
        said = ("This run", "The machine", "iB, at most", "the last 5 minutes")
        await until(pilot, lambda: all(each in screen_text(pilot) for each in said))
        text = screen_text(pilot)
        assert all(len(line) <= size[0] for line in text.split("\n"))
        await until(pilot, lambda: "% of 200 %" in screen_text(pilot))
        home.run("atwork").write_json("exit.json", {"status": "done", "peak_memory_mb": 512.0})
        await until(pilot, lambda: "It has ended (done)" in screen_text(pilot))
        assert "0.50 GiB" in screen_text(pilot)


async def test_a_panel_that_cannot_measure_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: object) -> None:
        raise RuntimeError("the [meter] is away")

    monkeypatch.setattr(feed.sampler(home), "system", broken)
    async with Panels(home, "atwork").run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "the [meter] is away" in screen_text(pilot))
        monkeypatch.undo()
        await until(pilot, lambda: "The machine" in screen_text(pilot))


def test_a_graph_keeps_its_scale_and_its_gaps() -> None:
    assert graph((None, 0.0, 0.5, 1.0), 4, 1, 1.0) == [" ▁▄▇"]
    assert graph((None, 0.0, 0.5, 1.0), 4, 2, 1.0) == ["   █", " ▁██"]
    assert graph((0.0, 1.0, 0.5, 0.5), 2, 1, 1.0) == ["▄▄"]  # the mean of what falls into a column
    assert graph((1.0,), 3, 1, 0.0) == ["▇▇▇"]
    assert graph((), 3, 1, 1.0) == ["   "]
    assert set("".join(graph(tuple(n / 10 for n in range(12)), 12, 3, 1.0))) <= set(BLOCKS)


@pytest.mark.parametrize("width", [40, 78, 118, 198])
def test_gauges_never_outgrow_their_width(width: int) -> None:
    made_up = Machine("box", 64, 12.5, (1.0, 2.0, 3.0), 10 << 30, 256 << 30, 1 << 30, 2 << 30, 5, 9, Gpus((A100,)))
    values = {"cpu": (1.0, None, 64.0), "memory": (1.0,), "gpu 0": (50.0,)}
    text = draw([*gauges(made_up, values), Gauge("plain", None, "words")], width, ("red", "blue"), 2)
    assert isinstance(text, Text)
    lines = text.plain.split("\n")
    assert all(len(line.rstrip()) <= width for line in lines)
    if width > 78:
        assert "12.5 of 64 busy · load 1.00 2.00 3.00" in text.plain
        assert "10.0 of 256.0 GiB · swap 1.0 of 2.0" in text.plain


def test_a_look_at_the_screen_is_cheap(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    asker = feed.MachineFeed(home, lambda: SimpleNamespace())
    asker.view()
    asker.view()
    began = time.process_time()
    for _ in range(20):
        asker.view()
    assert (time.process_time() - began) / 20 < 0.03  # seconds of a core, each second
