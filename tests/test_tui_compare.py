"""The comparison in the dashboard: its feed, its table, and the screen driven by its keys."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard import Watched, made, screen_text, told, until
from folders import append, make_run
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input, Static

from engine.rundir import RunDir
from trainctl.compare.order import BY, Order
from trainctl.compare.render.csv import prices as price_csv
from trainctl.home import Home
from trainctl.plot.series import Band
from trainctl.registry import ingest
from trainctl.registry.watch import Watch
from trainctl.tui import keys
from trainctl.tui.feed import comparison
from trainctl.tui.feed.comparison import CURVES, PRICE, Asked, Compared, ComparisonFeed, Curve, key, twin_command
from trainctl.tui.feed.export import FORMS, Shown, export
from trainctl.tui.screens.compare import CompareScreen
from trainctl.tui.screens.export import ExportScreen
from trainctl.tui.widgets.comparison import ComparisonTable
from trainctl.tui.widgets.comparison_curves import PairCurves
from trainctl.tui.widgets.comparison_lines import lay_out, notes

SIZES = [(80, 24), (120, 40), (200, 60)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return made(tmp_path / "home")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CompareScreen, "period", 0.25)


def feed(home: Home, runs: tuple[str, ...] = ()) -> ComparisonFeed:
    return ComparisonFeed(home, Watch(home), runs)


def asked(home: Home, runs: tuple[str, ...] = (), **how: Any) -> Compared:
    ingest.refresh(home)  # the first look takes the index as it is
    found = feed(home, runs).answer(Asked(**how))
    assert found is not None
    return found


def other_pair(home: Home, name: str = "digits-at", gain: float = -2.0, **how: Any) -> None:
    """A pair of one seed whose +TRAIN side has `gain` points of PGD-20 more."""
    for side in (False, True):
        metrics = {"natural": 90.0, "pgd20": 40.0 + gain * side}
        make_run(home, f"{name[-4:]}{side:d}", method="at", topology=side, recipe_name=name, metrics=metrics, **how)


# --- the feed -----------------------------------------------------------------------------------------------------


def test_nothing_new_is_no_answer(home: Home) -> None:
    source = feed(home)
    first = source.answer(Asked())
    assert first is not None and len(first.comparison.pairs) == 1
    source.answer(Asked())  # the first look takes the index as it is
    assert source.answer(Asked()) is None
    assert source.answer(Asked(checkpoint="last")) is not None
    other_pair(home)
    source._watcher.wake()
    second = source.answer(Asked(checkpoint="last"))
    assert second is not None and len(second.comparison.pairs) == 2


def test_only_what_has_changed_is_read_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    source = feed(home)
    source.answer(Asked())
    read: list[str] = []
    loader = comparison.members.load_all

    def watched(home: Home, runs: Any, checkpoint: str) -> Any:
        listed = list(runs)
        read.extend(run.id for run in listed)
        return loader(home, listed, checkpoint)

    monkeypatch.setattr(comparison.members, "load_all", watched)
    append(home.run("train0"), [("eval", {
        "metric": "pgd20", "value": 99.0, "n": 360, "split": "test", "checkpoint": "last", "epoch": 3, "rule": "x",
    })], 2000.0)  # fmt: skip
    source._watcher.wake()
    source.answer(Asked())
    assert read == ["train0"]
    append(home.run("atwork"), [("step", {"step": 81, "epoch": 9, "stage": "train", "loss": 0.1})], 2000.0)
    source._watcher.wake()
    assert source.answer(Asked()) is not None and read == ["train0"]
    assert source.answer(Asked(checkpoint="last")).comparison.pairs[0].train.metrics["pgd20"].mean == (99.0 + 60.0) / 2  # type: ignore[union-attr]


def test_which_runs_are_compared(home: Home) -> None:
    other_pair(home, created=1.0)
    assert [pair.label for pair in asked(home).comparison.pairs] == ["digits-at", "digits-trades"]
    assert [pair.label for pair in asked(home, filtered="method=at").comparison.pairs] == ["digits-at"]
    marked = asked(home, runs=("base0", "train0", "s-at0", "gone"))
    assert [pair.baseline.runs for pair in marked.comparison.pairs] == [("base0",)]
    assert [side.label for side in marked.comparison.alone] == ["digits-at"]
    assert asked(home, runs=("base0", "train0"), filtered="topology=on").comparison.pairs == ()
    home.run("s-at0").write_json("labels.json", {"archived": True})
    archived = asked(home).comparison
    assert [pair.label for pair in archived.pairs] == ["digits-trades"]
    assert [side.runs for side in archived.alone] == [("s-at1",)]


def test_a_filter_that_cannot_be_read_leaves_the_numbers(home: Home) -> None:
    source = feed(home)
    before = source.answer(Asked())
    after = source.answer(Asked(filtered="natural>>3"))
    assert before is not None and after is not None
    assert after.error and after.comparison == before.comparison


def test_the_newest_runs_are_kept_where_there_are_too_many(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    other_pair(home, created=5000.0)
    monkeypatch.setattr(comparison, "RUNS", 3)
    found = asked(home)
    assert [pair.label for pair in found.comparison.pairs] == ["digits-at"] and found.left_out == 1


def test_the_order_puts_the_best_first_and_what_lacks_the_number_last(home: Home) -> None:
    other_pair(home, "digits-lose", gain=-2.0, created=1.0)
    other_pair(home, "digits-win", gain=9.0, created=2.0)
    for side in (False, True):  # a pair that was not attacked
        make_run(home, f"bare{side:d}", topology=side, recipe_name="bare", metrics={"natural": 99.0}, created=3.0)
    labels = {"lose": "digits-lose", "win": "digits-win", "home": "digits-trades", "bare": "bare"}

    def order(wanted: Order) -> list[str]:
        found = [pair.label for pair in asked(home, order=wanted).comparison.pairs]
        return [name for label in found for name, known in labels.items() if known == label]

    assert order(Order()) == ["lose", "win", "bare", "home"]  # as they were made
    assert order(Order("pgd20", "delta")) == ["win", "home", "lose", "bare"]
    assert order(Order("pgd20", "delta", worst_first=True)) == ["lose", "home", "win", "bare"]
    assert order(Order("pgd20", "train")) == ["home", "win", "lose", "bare"]
    assert order(Order("natural", "baseline")) == ["bare", "home", "lose", "win"]
    assert order(Order("seconds_per_epoch", "delta"))[0] == "lose"  # all alike
    assert BY == ("delta", "train", "baseline")


def test_the_values_of_a_pair_seed_by_seed(home: Home) -> None:
    make_run(home, "base7", seed=7, created=1002.0, metrics={"natural": 94.0})
    first = asked(home)
    name = key(first.comparison.pairs[0])
    assert name == ("base0", "base1", "base7", "train0", "train1")
    rows = asked(home, opened=frozenset({name})).seeds[name]
    at = first.comparison.metrics.index("pgd20")
    natural = first.comparison.metrics.index("natural")
    assert [(row.label, row.cells[natural].value, row.cells[at].value) for row in rows] == [
        ("seed 0 · base0", "95.00", "53.00"), ("+ TRAIN · train0", "96.00", "58.00"), ("Δ", "+1.00", "+5.00"),
        ("seed 1 · base1", "95.00", "54.00"), ("+ TRAIN · train1", "96.00", "60.00"), ("Δ", "+1.00", "+6.00"),
        ("seed 7 · base7", "94.00", ""),
    ]  # fmt: skip


def test_the_curves_of_a_pair_are_bands_over_the_seeds(home: Home) -> None:
    for run, shift in (("base0", 0.0), ("base1", 2.0), ("train0", 3.0), ("train1", 7.0)):
        values = {"validation_pgd10": 50.0 + shift, "loss_robust": 1.0, "epochs": 3, "stage": "train"}
        append(home.run(run), [("epoch", {"epoch": 3, "step": 30, **values})], 3000.0)
    name = key(asked(home).comparison.pairs[0])
    found = asked(home, tab=CURVES, chosen=name).chosen
    assert found is not None and found.key == name
    assert [curve.metric for curve in found.curves] == [
        "validation_natural", "validation_pgd10", "loss_robust", "train_natural",
    ]  # fmt: skip
    robust = found.curves[1]
    assert robust.baseline is not None and robust.train is not None and robust.difference is not None
    assert (robust.baseline.mean, robust.baseline.low, robust.baseline.high) == ([51.0], [50.0], [52.0])
    assert (robust.train.mean, robust.difference.low, robust.difference.high) == ([55.0], [3.0], [5.0])
    assert asked(home, chosen=name).chosen == comparison.Chosen(name)  # no curves where they are not seen


def cost(run: RunDir, **exit: Any) -> None:
    """Add to what exit.json says."""
    run.write_json("exit.json", run.json("exit.json") | exit)


def test_what_a_pair_costs(home: Home) -> None:
    total = {"base0": 100.0, "base1": 140.0, "train0": 150.0, "train1": 210.0}
    memory = {"base0": 1000.0, "base1": 1000.0, "train0": 1250.0, "train1": 1250.0}
    for run in total:
        begun = json.loads(home.run(run).events.read_bytes().splitlines()[0])["t"]
        cost(home.run(run), t=begun + total[run], peak_memory_mb=memory[run])
    found = asked(home, tab=PRICE)
    [priced] = found.priced
    # By the means of both sides, in plain arithmetic.
    assert priced.ratio("seconds") == ((150.0 + 210.0) / 2) / ((100.0 + 140.0) / 2)
    assert priced.ratio("peak_memory_mb") == 1.25
    assert priced.baseline.amounts["seconds"].values == (100.0, 140.0)
    assert priced.baseline.amounts["evaluation_seconds"].mean == 1.0  # two metrics, half a second each
    rows = {row.kind: [cell.value for cell in row.cells] for row in found.prices.sections[0].rows}
    assert rows["baseline"] == ["2.00", "2:00", "1.0 s", "1000", "Some CPU, 1 thread"]
    assert rows["delta"] == ["×1.00", "×1.50", "×1.00", "×1.25", ""]
    lines = list(csv.DictReader(io.StringIO(price_csv(found.priced))))
    assert [(line["side"], line["mean"]) for line in lines if line["amount"] == "peak_memory_mb"] == [
        ("baseline", "1000.0"), ("train", "1250.0"), ("ratio", "1.25"),
    ]  # fmt: skip
    assert asked(home).priced == ()  # not worked out while it is not seen


def test_prices_of_different_devices_are_not_compared(home: Home) -> None:
    env = home.run("train1").json("env.json") | {"device": "NVIDIA A100", "device_type": "cuda"}
    home.run("train1").write_json("env.json", env)
    (home.run("base0").path / "attempts.jsonl").write_text("{}\n{}\n")
    found = asked(home, tab=PRICE)
    assert not found.priced[0].comparable and found.priced[0].ratio("seconds") is None
    rows = {row.kind: row for row in found.prices.sections[0].rows}
    assert [cell.value for cell in rows["delta"].cells] == [""] * 5
    assert rows["train"].cells[-1].value == "several"
    assert [found.prices.notes[mark] for row in rows.values() for mark in row.marks] == [
        "interrupted and resumed: the total contains the time between",
        "its runs ran on different devices: Some CPU, 1 thread; NVIDIA A100",
        "not comparable: the sides ran on different devices",
    ]


@pytest.mark.parametrize(
    ("command", "topology", "twin"),
    [
        ("trainctl run digits-at --seeds 0-2", False, "trainctl run digits-at --seeds 0-2 --train"),
        ("trainctl run digits-at --pair --set 'a.b=c d'", False, "trainctl run digits-at --set 'a.b=c d' --train"),
        ("trainctl run digits-at --train", True, "trainctl run digits-at"),
        ("trainctl run x --set topology.enabled=true", True, ""),
        ("trainctl reproduce 1", False, ""),
        ("trainctl run 'unclosed", False, ""),
    ],
)
def test_the_command_that_makes_the_partner(command: str, topology: bool, twin: str) -> None:
    assert twin_command(command, topology=topology) == twin


def test_it_answers_fast_with_many_pairs(home: Home) -> None:
    """As a ratio to reading their folders in the plainest way, since machines differ."""
    folders = {side: home.run(f"{side}0").path for side in ("base", "train")}
    files = {
        side: {f.name: f.read_bytes() for f in folder.iterdir() if f.is_file()} for side, folder in folders.items()
    }
    begun = time.process_time()
    for number in range(60):
        for side, content in files.items():
            run = home.run(f"{side}many{number}")
            run.path.mkdir()
            for name, data in content.items():
                run.path.joinpath(name).write_bytes(data)
            pair = f"p{number}"
            about = run.json("run.json") | {"id": run.id, "pair": pair, "group": pair + side}
            run.write_json("run.json", about)
    making = time.process_time() - begun
    source = feed(home)
    source._watcher.look()
    source._watcher.look()
    begun = time.process_time()
    first = source.answer(Asked())
    took = time.process_time() - begun
    assert first is not None and len(first.comparison.pairs) == 61
    assert took < max(1.0, 20 * making)
    begun = time.process_time()
    assert source.answer(Asked(order=Order("pgd20"))) is not None
    assert time.process_time() - begun < max(0.3, took)


# --- the lines ----------------------------------------------------------------------------------------------------


def test_second_best_needs_three_and_numbers_stand_in_columns(home: Home) -> None:
    alone = asked(home)
    assert not any(cell.second for row in alone.grid.sections[0].rows for cell in row.cells)
    other_pair(home)
    found = asked(home)
    layout = lay_out(found.grid, {}, found.comparison.metrics, 100)
    pgd20 = next(column for column in layout.columns if column.name == "pgd20")
    shown = {
        line.text.strip(): pgd20.text(cell) for line in layout.lines if line.entry >= 0 and (cell := line.cell("pgd20"))
    }
    assert shown["digits-trades"][1].strip() == "°" and shown["digits-trades"][0].strip() == "53.50"
    assert {len("".join(parts)) for parts in shown.values()} == {pgd20.width}
    best = [line.text.strip() for line in layout.lines if (c := line.cell("pgd20")) and c.best]
    assert best == ["+ TRAIN"]


def test_no_number_is_cut_and_each_column_can_be_reached(home: Home) -> None:
    found = asked(home)
    layout = lay_out(found.grid, {}, found.comparison.metrics, 60)
    width = layout.frozen + max(column.width for column in layout.columns)
    seen: set[int] = set()
    for across in range(layout.width - width + 8):
        fitting = layout.whole(across, width)
        assert sum(layout.columns[index].width for index in fitting) + 2 * (len(fitting) - 1) <= width - layout.frozen
        seen |= set(fitting)
    assert seen == set(range(len(layout.columns)))


def test_the_notes_of_a_pair_are_those_of_its_marks(home: Home) -> None:
    other_pair(home, recipe_table={"eval": {"select": "test"}})
    found = asked(home)
    at = {pair.label: number for number, pair in enumerate(found.comparison.pairs)}
    assert any("chosen on the test set" in note for note in notes(found.grid, at["digits-at"]))
    assert not any("chosen on the test set" in note for note in notes(found.grid, at["digits-trades"]))


# --- the export ---------------------------------------------------------------------------------------------------


def test_the_export_has_what_is_shown_in_its_order(home: Home, tmp_path: Path) -> None:
    other_pair(home)
    compared = asked(home, order=Order("natural"), tab=PRICE)
    for tab, words in ((comparison.TABLE, ("PGD-20", "digits-trades", "digits-at")), (PRICE, ("peak MB", "ratio"))):
        shown = Shown(compared, tab)
        for form in FORMS[:3]:
            text = shown.text(form.name)
            assert text.index("digits-trades") < text.index("digits-at"), form
            if form.name == "markdown":
                assert all(word in text for word in words)
    path = tmp_path / "all.PNG"
    said = export(home, Shown(compared, CURVES), path, FORMS[4], replace=False)
    assert str(path) in said and path.read_bytes().startswith(b"\x89PNG")


# --- the screen ---------------------------------------------------------------------------------------------------


async def compare(pilot: Pilot[None], **how: Any) -> CompareScreen:
    app = pilot.app
    assert isinstance(app, Watched)
    screen = CompareScreen(app.home, **how)
    app.push_screen(screen)
    await until(pilot, lambda: app.screen is screen and screen.is_mounted)
    return screen


def sides(pilot: Pilot[None]) -> Iterator[str]:
    yield from (line.rstrip() for line in screen_text(pilot).split("\n"))


async def test_curves_never_stand_under_the_name_of_another_pair(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    other_pair(home)
    monkeypatch.setattr(CompareScreen, "period", 1000.0)
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        screen = await compare(pilot)

        def named() -> str:
            return str(screen.query_one("#pair-title", Static).content)

        await pilot.press("2")
        await until(pilot, lambda: "digits-trades" in named())
        screen.query_one("#filter", Input).value = "method=at"
        await until(pilot, lambda: "digits-at" in named())
        assert screen._compared is not None and screen._compared.chosen is not None
        assert screen._compared.chosen.key == screen._chosen


async def test_a_metric_of_one_side_alone_has_no_difference_to_wait_for() -> None:
    class Alone(App[None]):
        def compose(self) -> ComposeResult:
            yield PairCurves()

    band = Band([1, 2], [0.1, 0.2], [0.1, 0.2], [0.1, 0.2], 1)
    async with Alone().run_test(size=(120, 40)) as pilot:
        curves = Curve("loss", band, band, band), Curve("loss_topology", None, band, None)
        pilot.app.query_one(PairCurves).show(curves, ("red", "green", "blue"))
        await until(pilot, lambda: "only +TRAIN has it" in screen_text(pilot))
        assert "no values yet" not in screen_text(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_every_key_of_the_comparison(
    home: Home, size: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other_pair(home, created=1.0)
    pressed: set[str] = set()

    async def press(name: str, shows: Any) -> None:
        assert any(key.place == keys.COMPARE and name in key.keys.split(",") for key in keys.KEYS), name
        pressed.add(name)
        await pilot.press(name)
        await until(pilot, lambda: shows() if callable(shows) else shows in screen_text(pilot))

    app = Watched(home)
    async with app.run_test(size=size) as pilot:
        screen = await compare(pilot)
        await until(pilot, lambda: "+5.50" in screen_text(pilot))
        table = screen.query_one("#pairs-table", ComparisonTable)
        assert all(len(line) <= size[0] for line in sides(pilot))
        assert {"2 pairs", "* best"} <= {word for word in ("2 pairs", "* best") if word in screen_text(pilot)}
        await press("down", lambda: table.entry == 1)
        await until(pilot, lambda: "digits-trades  and  digits-trades+train" in screen_text(pilot))
        await press("up", lambda: table.entry == 0)
        await press("right", lambda: table.column == "pgd20")
        await press("s", "by Δ PGD-20")
        await until(pilot, lambda: table.entry == 1)  # it stays on its pair
        await press("S", "worst first")
        await until(pilot, lambda: table.entry == 0)
        await press("left", lambda: table.column == "natural")
        await pilot.press("down")
        await press("enter", "seed 1 · base1")
        await pilot.press("enter")
        await until(pilot, lambda: "seed 1" not in screen_text(pilot))
        await press("b", "last checkpoints")
        await press("2", "Δ validation, natural")
        await press("3", "peak MB")
        await until(pilot, lambda: "ratio" in screen_text(pilot))
        await press("1", "PGD-20")
        await press("y", lambda: "copied" in told(pilot))
        assert "| digits-trades" in app.clipboard
        await press("e", lambda: isinstance(app.screen, ExportScreen))
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is screen)
        await press("slash", lambda: isinstance(app.focused, Input))
        await pilot.press(*"method=at")
        await until(pilot, lambda: "1 pair ·" in screen_text(pilot))
        await pilot.press("escape")
        await until(pilot, lambda: "2 pairs" in screen_text(pilot))
        await press("escape", lambda: app.screen is not screen)
    assert pressed == {key.keys for key in keys.KEYS if key.place == keys.COMPARE}


async def test_the_export_asks_for_a_name_and_says_what_is_wrong(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    app = Watched(home)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await compare(pilot)
        await until(pilot, lambda: "+5.50" in screen_text(pilot))
        await pilot.press("e", "enter")
        await until(pilot, lambda: "written:" in told(pilot))
        assert str(tmp_path / "pairs.md") in told(pilot)
        assert "| +5.50" in Path("pairs.md").read_text()
        Path("pairs.md").write_text("mine")
        await pilot.press("e", "enter")
        await until(pilot, lambda: "enter once more replaces it" in screen_text(pilot))
        assert Path("pairs.md").read_text() == "mine"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        assert "+5.50" in Path("pairs.md").read_text()
        await pilot.press("e", "down")
        await until(pilot, lambda: app.screen.query_one(Input).value == "pairs.tex")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is screen)
        assert r"\toprule" in Path("pairs.tex").read_text()
        await pilot.press("e", "ctrl+u", *"x.doc")
        await until(pilot, lambda: "must end in .md" in screen_text(pilot))
        await pilot.press("ctrl+u", *"no/x.csv", "enter")
        await until(pilot, lambda: "cannot write" in screen_text(pilot))
        await pilot.press("ctrl+u", *"x.png", "enter")
        await until(pilot, lambda: app.screen is screen)
        assert Path("x.png").read_bytes().startswith(b"\x89PNG")


async def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    async with Watched(home).run_test(size=(80, 24)) as pilot:
        await compare(pilot)
        await until(pilot, lambda: "--pair --seeds 0-2" in screen_text(pilot))
        make_run(home, "waiting", status="queued")
        await until(pilot, lambda: "no run is done" in screen_text(pilot))
        await pilot.press("e")
        await until(pilot, lambda: "nothing to export" in told(pilot))
        await pilot.press("up", "down", "left", "right", "enter", "s", "S", "b", "y", "1", "2", "3")
        make_run(home, "ended")
        await until(
            pilot, lambda: "trainctl run digits-trades --seeds 0 --train" in " ".join(screen_text(pilot).split())
        )


async def test_text_from_files_is_shown_as_text_and_the_marked_runs_alone(home: Home) -> None:
    for side in (False, True):
        name = "[red]x[/red]\x1b[31m-s0"
        make_run(home, f"odd{side:d}", topology=side, name=name, group=f"odd{side}", pair="odd", created=1.0)
    app = Watched(home)
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await compare(pilot, runs=("odd0", "odd1"))
        await until(pilot, lambda: "1 pair · the marked runs" in screen_text(pilot))
        assert "[red]x[/red]" in screen_text(pilot) and "\x1b" not in screen_text(pilot)
        for _ in range(10):  # until the last of the first answers is there
            shown = screen._shown
            await pilot.pause(0.6)
            if screen._shown is shown:
                break
        assert screen._shown is shown  # nothing new, so nothing is drawn
        await pilot.click(ComparisonTable, offset=(36, 2))  # a heading
        await until(pilot, lambda: "by Δ" in str(screen.query_one("#title", Static).content))
        app.theme = "trainctl-light"
        await pilot.press("2")
        await until(pilot, lambda: "validation, natural" in screen_text(pilot))
