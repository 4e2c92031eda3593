"""The figure of training curves."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from folders import append, make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg

from trainctl.cli.app import _run
from trainctl.cli.plot import plot
from trainctl.compare.histories import histories
from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.plot import curves, looks
from trainctl.plot.series import History, default_metrics, difference, groups, summarize, twins
from trainctl.registry import select

ROOT = Path(__file__).parent.parent


def history(
    name: str, topology: bool, seed: int, pair: str = "p", group: str = "", **values: Iterable[float]
) -> History:
    measured = {metric: dict(enumerate(line, 1)) for metric, line in values.items()}
    return History(f"{name}-s{seed}", group or f"{name}-00000000", pair, topology, seed, "l∞, lbgat protocol", measured)


def pair_of(seeds: int = 3, epochs: int = 4) -> list[History]:
    return [
        history(
            "trades" + "+train" * topology, topology, seed,
            loss_robust=[2.0 / e + seed / 10 for e in range(1, epochs + 1)],
            validation_natural=[90.0 + e + seed for e in range(1, epochs + 1)],
            validation_pgd10=[50.0 + e + seed + 3 * topology for e in range(1, epochs + 1)],
        )
        for seed in range(seeds) for topology in (False, True)
    ]  # fmt: skip


def panels(figure: Any) -> dict[str, Any]:
    return {axis.get_title(): axis for axis in figure.axes if axis.get_title()}


def test_a_band_is_mean_minimum_and_maximum_over_the_seeds_that_reached_an_epoch() -> None:
    band = summarize([{1: 1.0, 2: 2.0}, {1: 3.0}, {1: math.nan}])
    assert band is not None
    assert (band.epochs, band.mean, band.low, band.high, band.seeds) == ([1, 2], [2.0, 2.0], [1.0, 2.0], [3.0, 2.0], 2)
    assert summarize([{1: math.inf}]) is None


def test_the_difference_is_taken_between_equal_seeds_only() -> None:
    baseline = groups([history("a", False, s, pgd10=[float(10 * s)]) for s in (0, 1)])[0]
    train = groups([history("b", True, s, pgd10=[10.0 * s + 1 + s]) for s in (1, 2)])[0]
    band = difference(baseline, train, "pgd10")
    assert band is not None
    assert (band.mean, band.seeds) == ([2.0], 1)
    stranger = groups([history("c", True, 7, pgd10=[1.0])])[0]
    assert difference(baseline, stranger, "pgd10") is None


def test_groups_stand_by_pair_with_the_baseline_first_and_without_their_seed() -> None:
    runs = [*reversed(pair_of(2)), history("at", False, 0, pair="q")]
    found = groups(runs)
    assert [(g.label, len(g.runs)) for g in found] == [("trades", 2), ("trades+train", 2), ("at", 1)]
    assert [(b.label, t.label) for b, t in twins(found)] == [("trades", "trades+train")]


def test_groups_of_the_same_name_or_of_different_threats_are_told_apart() -> None:
    same = [history("a", False, 0, group="a-11111111"), history("a", False, 0, group="a-22222222")]
    assert [g.label for g in groups(same)] == ["a [11111111]", "a [22222222]"]
    other = History("b-s0", "b", "q", False, 0, "l∞, las protocol", {})
    assert [g.label for g in groups([same[0], other])] == ["a (l∞, lbgat protocol)", "b (l∞, las protocol)"]


def test_the_usual_panels_come_in_the_order_loss_training_selection() -> None:
    names = {"validation_pgd10", "test_natural", "validation_natural", "lr", "train_natural", "loss_robust"}
    assert default_metrics(names) == [
        "loss_robust", "train_natural", "validation_natural", "validation_pgd10", "test_natural",
    ]  # fmt: skip


def test_a_pair_shares_its_colour_and_is_told_apart_without_it() -> None:
    figure = curves.draw([*pair_of(), history("at", False, 0, pair="q", loss_robust=[1.0, 2.0])])
    assert list(panels(figure)) == ["robust loss", "validation, natural", "validation, pgd10", "TRAIN − baseline"]
    baseline, train, other = panels(figure)["robust loss"].get_lines()
    assert baseline.get_color() == train.get_color() != other.get_color()
    assert baseline.get_marker() == train.get_marker() != other.get_marker()
    assert (baseline.get_markerfacecolor(), train.get_markerfacecolor()) == ("white", train.get_color())
    assert (baseline.is_dashed(), train.is_dashed()) == (True, False)
    assert len(panels(figure)["robust loss"].collections) == 2  # a single seed has no band


def test_the_last_panel_shows_the_difference() -> None:
    axis = panels(curves.draw(pair_of()))["TRAIN − baseline"]
    drawn = {tuple(line.get_ydata()) for line in axis.get_lines()}
    assert {(3.0,) * 4, (0.0,) * 4} <= drawn
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["validation, pgd10", "validation, natural"]


def test_without_a_pair_there_is_no_difference() -> None:
    assert "TRAIN − baseline" not in panels(curves.draw(pair_of()[::2]))


def test_a_second_twin_has_a_lighter_colour_and_another_marker_filling() -> None:
    second = history("trades+train b", True, 0, loss_robust=[1.0, 2.0])
    _, first, lighter = panels(curves.draw([*pair_of(1), second]))["robust loss"].get_lines()
    assert first.get_color() != lighter.get_color()
    assert first.get_fillstyle() != lighter.get_fillstyle()


def drawn_texts(figure: Any) -> str:
    legends = [legend for holder in (figure, *figure.axes) if (legend := getattr(holder, "legend_", None))]
    texts = [text.get_text() for legend in (*legends, *figure.legends) for text in legend.get_texts()]
    return "\n".join([*texts, *(text.get_text() for text in figure.texts)])


def test_legend_and_caption_say_what_is_drawn() -> None:
    text = drawn_texts(curves.draw(pair_of())).replace("\n", " ")
    assert "trades (3 seeds)" in text
    assert "band: their minimum to maximum" in text
    assert "Attack: l∞, lbgat protocol." in text
    single = drawn_texts(curves.draw(pair_of(1)[:1]))
    assert "(1 seed)" in single
    assert "band" not in single


def test_selection_on_the_test_set_is_said() -> None:
    text = drawn_texts(curves.draw([history("a", False, 0, test_natural=[1.0])]))
    assert "chosen by the test accuracies" in text.replace("\n", " ")


@pytest.mark.parametrize("name", ["_hidden", "$x^2$ \\frac{", "<b>&", "naïve λ"])
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    figure = curves.draw([history(name, False, 0, loss_robust=[1.0, 2.0])])
    looks.save(figure, tmp_path / "x.svg")
    assert (tmp_path / "x.svg").stat().st_size > 1000


@pytest.mark.parametrize("count", [1, 9])
def test_nothing_is_cut_off_and_no_texts_overlap(count: int) -> None:
    runs = [
        history(
            f"a-rather-long-recipe-name-{i}", False, 0, pair=f"p{i}", loss_robust=[1.0, 2.0], train_natural=[1.0, 2.0]
        )
        for i in range(count)
    ]
    figure = curves.draw(runs)
    FigureCanvasAgg(figure).draw()  # the layout is made when it is drawn
    whole = figure.bbox
    caption = figure.texts[0].get_window_extent() if figure.texts[0].get_text() else None
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0
        assert caption is None or caption.y1 <= box.y0
        assert all(axis.get_tightbbox().y0 >= box.y1 for axis in figure.axes)


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_ending_says_the_format_and_no_date_is_in_it(ending: str, start: bytes, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        looks.save(curves.draw(pair_of(1)), tmp_path / (name + ending))
        written.append((tmp_path / (name + ending)).read_bytes())
    assert all(data.startswith(start) for data in written)
    assert not any(b"CreationDate" in data or b"<dc:date>" in data for data in written)
    if ending == ".png":  # matplotlib orders the parts of the others as it likes
        assert written[0] == written[1]


def test_mistakes_are_explained(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot tell the format"):
        looks.check_format(tmp_path / "x.jpg")
    with pytest.raises(UsageError, match="none of these runs has finished an epoch"):
        curves.draw([history("a", False, 0)])
    with pytest.raises(UsageError, match="no run has the metric los_robust") as error:
        curves.draw(pair_of(), ["los_robust"])
    assert "did you mean loss_robust?" in error.value.hint
    with pytest.raises(MachineError, match="cannot write"):
        looks.save(curves.draw(pair_of(1)), tmp_path / "missing" / "x.png")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    for seed in (0, 1):
        make_run(home, f"base{seed}", seed=seed, created=1000.0 + seed)
        make_run(home, f"train{seed}", seed=seed, topology=True, created=1010.0 + seed)
    return home


def test_histories_hold_the_values_of_each_epoch(home: Home) -> None:
    append(home.run("base0"), [("epoch", {"epoch": 4, "step": 40, "stage": "train", "loss": math.nan})], 2000.0)
    found = histories(home, select.resolve(home, ["base0", "train1"]))
    assert [(run.name, run.topology, run.seed) for run in found] == [
        ("digits-trades-s0", False, 0), ("digits-trades+train-s1", True, 1),
    ]  # fmt: skip
    assert found[0].values["validation_natural"] == {1: 83.0, 2: 84.0, 3: 85.0}
    assert set(found[0].values["loss"]) == {1, 2, 3}
    assert found[0].threat == "l∞, lbgat protocol, ε = 0.25"


def test_the_command_writes_the_figure_and_prints_its_path(home: Home, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trainctl", "plot", "recipe:digits-trades", "--home", str(home.path)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "curves.png\n"), done.stderr
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_takes_metrics_and_a_file(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.svg"
    plot(["base0"], output=file, metrics="loss, train_natural", home=str(home.path))
    assert capsys.readouterr().out == f"{file}\n"
    assert "training, natural" in file.read_text()


def test_a_filter_without_a_run_is_a_mistake(home: Home, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run fits natural>99"):
        plot(["natural>99"], output=tmp_path / "x.png", home=str(home.path))
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--kind", "tsne", "--metrics", "loss"], "--metrics has no meaning for tsne"),
        (["--kind", "topology", "--per-class", "3"], "--per-class has no meaning for topology"),
        (["--checkpoint", "best"], "--checkpoint has no meaning for curves"),
    ],
)
def test_options_of_another_figure_are_refused(home: Home, capsys: Any, arguments: list[str], said: str) -> None:
    assert _run(["plot", "aaaa", "--home", str(home.path), *arguments]) == 2
    assert said in capsys.readouterr().err
