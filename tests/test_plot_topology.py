"""The figure of topology scores against a setting."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from folders import make_run
from matplotlib.backends.backend_agg import FigureCanvasAgg

from engine.rundir import RunDir
from trainctl.cli import plot as command
from trainctl.errors import UsageError
from trainctl.home import Home
from trainctl.plot import topology
from trainctl.plot.topology import Scored

KS = (5, 10, 20, 30, 40, 50)
MEASURED: dict[str, Any] = {
    "rule": "best pgd10 on validation", "distance": "cosine", "support": 2516, "norm": "linf", "eps": 0.25,
    "step_size": 0.0241935, "steps": 20, "start": "uniform", "n": 359,
}  # fmt: skip


def scored(beta: float, seed: int = 0, train: bool = False, recipe: str = "digits-trades", **changes: Any) -> Scored:
    """Scores that fall by 2 a unit of beta and by k/10, and rise by 1 a seed."""
    weight = 5.0 if train else 5.0 + beta  # of a baseline it means nothing
    settings = {"method.beta": beta, "topology.weight": weight, "run.seed": seed, **changes}
    scores = {
        metric: {k: base - 2 * beta - k / 10 + seed for k in KS}
        for metric, base in (("topo_natural", 99.0), ("topo_robust", 70.0))
    }
    return Scored(recipe, train, seed, settings, beta, scores, MEASURED)


def sweep(seeds: int = 2) -> list[Scored]:
    return [scored(b, seed, train) for b in (6.0, 1.0, 3.0) for seed in range(seeds) for train in (False, True)]


def test_a_row_of_panels_an_experiment_and_a_line_a_k() -> None:
    figure = topology.draw(sweep(), "method.beta")
    assert len(figure.axes) == 4
    natural, robust, _, twin = figure.axes
    assert "natural" in natural.get_title() and "PGD-20" in robust.get_title()
    assert natural.get_ylabel().startswith("digits-trades\n") and "+train" in figure.axes[2].get_ylabel()
    assert twin.get_xlabel() == "β (method.beta)" and not robust.get_xlabel()
    lines = robust.get_lines()
    assert [list(line.get_xdata()) for line in lines] == [[1.0, 3.0, 6.0]] * 6
    assert list(lines[0].get_ydata()) == [70 - 2 - 0.5 + 0.5, 70 - 6 - 0.5 + 0.5, 70 - 12 - 0.5 + 0.5]
    assert len({line.get_marker() for line in lines}) == 6
    assert [line.is_dashed() for line in lines] == [False] + 5 * [True]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [f"k = {k}" for k in KS]


def test_mean_minimum_and_maximum_over_the_seeds() -> None:
    [family] = topology.families([scored(1.0, 0), scored(1.0, 3), scored(2.0, 1)], "method.beta")
    assert family.line("topo_natural", 10) == [(1.0, 97.5, 96.0, 99.0), (2.0, 95.0, 95.0, 95.0)]
    assert family.line("topo_natural", 7) == []


def test_the_same_seed_counts_once() -> None:
    newer = Scored("digits-trades", False, 0, scored(1.0).settings, 1.0, {"topo_natural": {5: 50.0}}, MEASURED)
    [family] = topology.families([scored(1.0), newer], "method.beta")
    assert family.line("topo_natural", 5) == [(1.0, 50.0, 50.0, 50.0)]


def test_experiments_are_told_apart_by_what_differs() -> None:
    runs = [
        scored(1.0), scored(2.0), scored(1.0, 1), scored(1.0, train=True),
        scored(1.0, **{"attack.eps": 0.1}), scored(2.0, **{"title": "words", "run.device": "cpu", "eval.attacks": []}),
    ]  # fmt: skip
    found = topology.families(runs, "method.beta")
    assert [len(family.runs) for family in found] == [4, 1, 1]
    assert found[1].label == "digits-trades, attack.eps 0.1"
    assert found[2].label == "digits-trades+train"
    weaker = Scored("digits-trades", False, 0, runs[0].settings, 1.0, runs[0].scores, {**MEASURED, "eps": 0.1})
    apart = topology.families([runs[0], weaker], "method.beta")
    assert [family.label for family in apart] == ["digits-trades, eps 0.25", "digits-trades, eps 0.1"]


def test_the_caption_says_how_it_was_measured() -> None:
    caption = topology.draw(sweep(), "method.beta").texts[0].get_text().replace("\n", " ").replace("\u00a0", " ")
    for part in (
        "2516 natural and adversarial training features (cosine distance)", "mean over 2 seeds; band", "ε 0.25",
        "20 steps", "Checkpoint: best pgd10 on validation.",
    ):  # fmt: skip
        assert part in caption
    assert "band" not in topology.draw(sweep(1), "method.beta").texts[0].get_text()


def test_nothing_is_cut_off_and_no_texts_overlap() -> None:
    figure = topology.draw([scored(b, train=t, recipe="a-long-name-of-a-$recipe") for b in (1, 2) for t in (0, 1)], "a")
    FigureCanvasAgg(figure).draw()
    [legend] = figure.legends
    box, caption = legend.get_window_extent(), figure.texts[0].get_window_extent()
    assert caption.y0 >= 0 and caption.y1 <= box.y0 and caption.x0 >= 0
    for axis in figure.axes:
        place = axis.get_tightbbox()
        assert place.y0 >= box.y1 and place.x0 >= 0 and place.y1 <= figure.bbox.y1 and place.x1 <= figure.bbox.x1
    labels = [axis.yaxis.label.get_window_extent() for axis in (figure.axes[0], figure.axes[2])]
    assert not labels[0].overlaps(labels[1])


def test_one_value_of_x_and_too_many_experiments_are_refused() -> None:
    with pytest.raises(UsageError, match="beta is 6 in all these runs") as error:
        topology.draw([scored(6.0), scored(6.0, 1)], "method.beta")
    assert "--grid method.beta=…" in error.value.hint
    with pytest.raises(UsageError, match="5 experiments, more than 4"):
        topology.draw([scored(b, recipe=f"r{n}") for n in range(5) for b in (1, 2)], "method.beta")


# --- the command --------------------------------------------------------------------------------------------


def store(run: RunDir, checkpoint: str = "best", **result: Any) -> None:
    for folder in (run.evaluations, run.checkpoints):
        folder.mkdir(exist_ok=True)
    for which in ("best", "last"):
        run.checkpoint(which).touch()
    for metric in topology.METRICS:
        run.write_json(f"eval/{checkpoint}-{metric}.json", {"settings": MEASURED, "result": result, "rows": 0})


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    for beta in (1, 3):
        for seed in (0, 1):
            run = make_run(home, f"b{beta}s{seed}", recipe_table={"method": {"beta": beta}}, seed=seed, created=beta)
            store(run, value=90.0, by_k={str(k): 90.0 + beta - k / 10 + seed for k in KS})
    return home


def plot(home: Home, *runs: str, **options: Any) -> None:
    command.plot(list(runs), kind=command.Kind.topology, home=str(home.path), **options)


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_the_command_reads_the_scores_and_writes_the_figure(
    home: Home, tmp_path: Path, ending: str, start: bytes, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_run(home, "none", method="standard")
    make_run(home, "failed", name="failed-s0")  # it has no checkpoint
    for name, key in (("off", False), ("on", True)):
        off = make_run(home, name, name=f"{name}-s0", recipe_table={"eval": {"topology": key}})
        off.checkpoints.mkdir()
        off.checkpoint("best").touch()
    with pytest.raises(UsageError, match=r"no topology scores for several k of checkpoint best: on$"):
        plot(home, "method=trades", output=tmp_path / "x.svg")
    with pytest.raises(UsageError, match=r"none of these runs can have topology scores"):
        plot(home, "off", "failed", output=tmp_path / "x.svg")
    shutil.rmtree(home.run("on").path)
    drawn: list[list[Scored]] = []
    monkeypatch.setattr(topology, "draw", lambda runs, key: drawn.append(runs) or draw(runs, key))
    file = tmp_path / f"x{ending}"
    plot(home, "method=trades or method=standard", output=file)
    out, err = capsys.readouterr()
    assert out == f"{file}\n" and "left out, without a number method.beta: digits-standard-s0" in err
    assert "with eval.topology = false: failed-s0, off-s0" in err
    assert file.read_bytes().startswith(start)
    assert [(run.x, run.seed, run.scores["topo_robust"][50]) for run in drawn[0]] == [
        (1.0, 0, 86.0), (1.0, 1, 87.0), (3.0, 0, 88.0), (3.0, 1, 89.0),
    ]  # fmt: skip


draw = topology.draw


def test_old_and_missing_scores_are_explained(home: Home, tmp_path: Path) -> None:
    store(home.run("b1s0"), value=90.0)
    make_run(home, "young", status="running")
    with pytest.raises(UsageError, match=r"no topology scores for several k of checkpoint best: b1s0$") as error:
        plot(home, "method=trades", output=tmp_path / "x.png")
    assert "`trainctl eval b1s0 --checkpoint best`" in error.value.hint
    store(home.run("b1s0"), value=90.0, by_k=["not", "a", "table"])
    with pytest.raises(UsageError, match="b1s0"):
        plot(home, "b1s0", "b3s0", output=tmp_path / "x.png")
    with pytest.raises(UsageError, match="of checkpoint last"):
        plot(home, "b1s1", "b3s0", checkpoint=command.Which.last, output=tmp_path / "x.png")


def test_mistakes_are_explained(home: Home, tmp_path: Path) -> None:
    make_run(home, "none", method="standard")
    for runs, options, message in (
        (["none"], {}, "none of these runs has a number method.beta"),
        (["b1s0", "b3s0"], {"x": "data.dataset"}, "none of these runs has a number data.dataset"),
        (["b1s0", "b3s0"], {"x": "topology.weight"}, "none of these runs has a number topology.weight"),
        (["b1s0", "b1s1"], {}, "method.beta is 1 in all these runs"),
        (["b1s0", "b3s0"], {"output": tmp_path / "x.jpg"}, "cannot tell the format"),
    ):
        with pytest.raises(UsageError, match=message) as error:
            plot(home, *runs, **{"output": tmp_path / "x.png", **options})
        assert error.value.hint
    assert not (tmp_path / "x.png").exists()
