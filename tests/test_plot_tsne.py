"""The figure of feature spaces: what is drawn, and the command that has the engine compute it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from folders import make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from engine.rundir import RunDir
from trainctl.cli import eval as evaluation
from trainctl.cli import plot as command
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.plot import looks, tsne

SETTINGS: dict[str, Any] = {
    "checkpoint": "best", "rule": "best pgd10 on validation", "norm": "linf", "eps": 0.25, "step_size": 0.0241935,
    "steps": 20, "start": "uniform", "classes": [1, 4], "of_classes": 100, "test_digest": "abc",
}  # fmt: skip


def stored(seed: int = 0, classes: tuple[int, ...] = (1, 4), each: int = 6, **settings: Any) -> dict[str, Any]:
    """Content of eval/best-tsne.json: a cloud for each class, its adversarial images beside it."""
    draw = random.Random(seed)
    points = [
        [split, n, label, made, round(9.0 * i + draw.gauss(made, 1), 3), round(draw.gauss(3 * made, 1), 3)]
        for split in ("test", "train") for made in (0, 1) for i, label in enumerate(classes) for n in range(each)
    ]  # fmt: skip
    result = {"perplexity": {"test": 23 / 3, "train": 23 / 3}, "points": points}
    return {"settings": {**SETTINGS, **settings}, "result": result, "rows": 0}


def embedding(tmp_path: Path, **changes: Any) -> tsne.Embedding:
    run = RunDir(tmp_path)
    run.evaluations.mkdir(exist_ok=True)
    run.write_json("eval/best-tsne.json", stored(**changes))
    return tsne.read(run, "best")


def panel(tmp_path: Path, name: str = "digits-trades-s0", robust: float | None = 47.632, **changes: Any) -> tsne.Panel:
    return tsne.Panel(name, 94.71, robust, 359, embedding(tmp_path, **changes))


def texts(axis: Any) -> dict[str, str]:
    return {text.get_text(): to_hex(text.get_color()) for text in axis.texts}


def test_a_panel_a_run_with_its_accuracies_in_red_and_blue(tmp_path: Path) -> None:
    figure = tsne.draw([panel(tmp_path), panel(tmp_path, "other", robust=None)])
    first, second = [axis for axis in figure.axes if axis.get_title()]
    assert (first.get_title(), second.get_title()) == ("digits-trades-s0", "other")
    found = texts(first)
    assert found["natural 94.71"] == tsne.NATURAL.lower() and found["PGD-20 47.63"] == tsne.ROBUST.lower()
    assert "PGD-20 –" in texts(second)
    assert {"1", "4"} <= found.keys()  # the classes, for those who see no colours


def test_every_point_is_drawn_and_in_sight(tmp_path: Path) -> None:
    figure = tsne.draw([panel(tmp_path, each=10)])
    [axis] = figure.axes
    clouds = panel(tmp_path, each=10).embedding.clouds["test"]
    drawn = sorted(tuple(place) for cloud in axis.collections for place in cloud.get_offsets().tolist())
    assert drawn == sorted(point for cloud in clouds.values() for point in cloud) and len(drawn) == 40
    (x0, x1), (y0, y1) = axis.get_xlim(), axis.get_ylim()
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in drawn)
    assert x1 - x0 == pytest.approx(y1 - y0)  # distances are the same in both directions
    marks = {to_hex(cloud.get_facecolor()[0]) for cloud in axis.collections}
    assert marks == {colour.lower() for colour in tsne.COLORS[:2]}


@pytest.mark.parametrize("seed", range(20))
def test_the_inset_covers_no_point(seed: int) -> None:
    draw = random.Random(seed)
    points = [(draw.uniform(-30, 30), draw.uniform(-9, 40)) for _ in range(200)]
    (left, low, side), corner = tsne._square_beside(points, 0.3)
    x0, y0 = left + corner[0] * 0.7 * side, low + corner[1] * 0.7 * side
    assert not [1 for x, y in points if x0 <= x <= x0 + 0.3 * side and y0 <= y <= y0 + 0.3 * side]
    assert all(left < x < left + side and low < y < low + side for x, y in points)
    assert side < 1.6 * 60
    free = [(0.0, 0.0), (10.0, 10.0), (0.0, 10.0), (5.0, 5.0)]  # nothing in the lower right
    assert tsne._square_beside(free, 0.3)[1] == (1, 0)


def test_the_inset_shows_training_images_or_is_left_away(tmp_path: Path) -> None:
    [axis] = tsne.draw([panel(tmp_path)]).axes
    [inset] = axis.child_axes
    assert sum(len(cloud.get_offsets()) for cloud in inset.collections) == 24
    assert not tsne.draw([panel(tmp_path)], inset=False).axes[0].child_axes


def test_the_caption_says_what_it_is(tmp_path: Path) -> None:
    figure = tsne.draw([panel(tmp_path), panel(tmp_path, "b", rule="last epoch")])
    caption = figure.texts[0].get_text().replace("\n", " ").replace("\u00a0", " ")
    for part in (
        "12 test images", "perplexity 7.67", "classes 1, 4 of 100", "inset: 12 training images", "linf, ε 0.25",
        "step 0.0242, 20 steps, uniform start", "Checkpoint: best pgd10 on validation; last epoch.",
        "Accuracies (%) on 359 test images.",
    ):  # fmt: skip
        assert part in caption
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["natural", "adversarial"]
    everything = tsne.draw([panel(tmp_path, of_classes=2)]).texts[0].get_text().replace("\n", " ")
    assert "all 2 classes" in everything


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_nothing_is_cut_off_and_no_texts_overlap(count: int, tmp_path: Path) -> None:
    name = "a-rather-long-recipe-name+train topology.weight=20 $x-s0"
    figure = tsne.draw([panel(tmp_path, name)] * count)
    FigureCanvasAgg(figure).draw()
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert len(panels) == count
    boxes = [axis.get_tightbbox() for axis in panels]
    for box in boxes:
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        assert box.y0 >= figure.legends[0].get_window_extent().y1 - 1
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    for axis in panels:
        accuracies = [text.get_window_extent() for text in axis.texts if text.get_text().startswith(("natural", "PGD"))]
        assert not accuracies[0].overlaps(accuracies[1])
        assert not any(box.overlaps(axis.title.get_window_extent()) for box in accuracies)


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_it_is_written(ending: str, start: bytes, tmp_path: Path) -> None:
    looks.save(tsne.draw([panel(tmp_path)]), tmp_path / f"x{ending}")
    assert (tmp_path / f"x{ending}").read_bytes().startswith(start)


def test_different_test_images_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different test images: a, b"):
        tsne.draw([panel(tmp_path, "a"), panel(tmp_path, "b", test_digest="other")])
    (tmp_path / "eval" / "best-tsne.json").write_text('{"settings": {}, "result": {"points": [["test"]]}}')
    with pytest.raises(UsageError, match=r"best-tsne.json: cannot be read"):
        tsne.read(RunDir(tmp_path), "best")
    with pytest.raises(UsageError, match="cannot be read"):
        tsne.read(RunDir(tmp_path), "last")


# --- the command --------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    for run in ("aaaa", "bbbb"):
        folder = make_run(home, run, seed=int(run == "bbbb"))
        folder.checkpoints.mkdir()
        folder.checkpoint("best").touch()
    return home


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    """In place of the engine: what it was asked for is listed, and it leaves an embedding."""
    asked: list[tuple[str, list[str]]] = []

    def work_on(run: RunDir, name: str, doing: str, arguments: list[str]) -> None:
        asked.append((run.id, arguments))
        run.evaluations.mkdir(exist_ok=True)
        (run.evaluations / "best-tsne.json").write_text(json.dumps(stored()))

    monkeypatch.setattr(evaluation, "work_on", work_on)
    return asked


def plot(home: Home, *runs: str, **options: Any) -> None:
    command.plot(list(runs), kind=command.Kind.tsne, home=str(home.path), **options)


def test_the_command_asks_the_engine_for_each_run_in_the_order_given(
    home: Home, engine: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn: list[list[tsne.Panel]] = []
    monkeypatch.setattr(tsne, "draw", lambda panels, *, inset: drawn.append(panels) or draw(panels, inset=inset))
    plot(home, "bbbb", "aaaa", "bbbb", classes=3, per_class=5)
    options = ["--embed", "--checkpoint", "best", "--classes", "3", "--per-class", "5"]
    assert engine == [("bbbb", options), ("aaaa", options)]
    assert capsys.readouterr().out == "tsne.png\n"
    assert (tmp_path / "tsne.png").read_bytes().startswith(b"\x89PNG")
    [panels] = drawn
    assert [(p.name, p.natural, p.robust, p.examples) for p in panels] == [
        ("digits-trades-s1", 95.0, 53.0, 360), ("digits-trades-s0", 95.0, 53.0, 360),
    ]  # fmt: skip


draw = tsne.draw


def test_mistakes_are_explained_before_anything_is_computed(home: Home, engine: list[Any], tmp_path: Path) -> None:
    make_run(home, "cccc", name="bare")
    make_run(home, "dddd", name="busy", status="running")
    with pytest.raises(UsageError, match="run cccc has no checkpoint 'best'"):
        plot(home, "aaaa", "bare")
    with pytest.raises(UsageError, match="run dddd is at work") as error:
        plot(home, "aaaa", "busy")
    assert "wait until it has trained" in error.value.hint
    with pytest.raises(UsageError, match="no checkpoint 'last'"):
        plot(home, "aaaa", checkpoint=command.Which.last)
    for number in range(7):
        make_run(home, f"eee{number}", tags=["many"])
    with pytest.raises(UsageError, match="7 runs"):
        plot(home, "tag:many")
    with pytest.raises(UsageError, match="cannot tell the format"):
        plot(home, "aaaa", output=tmp_path / "x.jpg")
    assert not engine
