"""t-SNE of features: which images, the same points twice, and what is found again."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch
from conftest import engine, run_engine
from tiny import tiny_splits, trained

from engine.attacks.pgd import PGD
from engine.data.base import Splits
from engine.evaluate import embedding, report
from engine.evaluate.accuracy import evaluating
from engine.recipe import Recipe, check
from engine.rundir import RunDir

CPU = torch.device("cpu")
BEST = {"name": "best", "epoch": 2, "rule": "best pgd10 on validation"}


@pytest.fixture(scope="module")
def splits() -> Splits:
    return tiny_splits(classes=4, train=40, test=30)


@pytest.fixture(scope="module")
def network(splits: Splits) -> torch.nn.Module:
    return trained(splits)


@pytest.fixture
def recipe() -> Recipe:
    return check({"eval": {"eps": 0.1, "batch_size": 16}})


def embed(
    recipe: Recipe, splits: Splits, network: torch.nn.Module, folder: Any, classes: int = 3, per_class: int = 4
) -> tuple[bool, dict[str, Any]]:
    """Whether it was computed, and what is stored."""
    rundir = RunDir(folder)
    made = embedding.embed(
        recipe=recipe, splits=splits, network=network, checkpoint=BEST, rundir=rundir, device=CPU,
        classes=classes, per_class=per_class,
    )  # fmt: skip
    return made, json.loads(report.path(rundir, "best", "tsne", "json").read_text())


def test_points_of_both_splits_natural_and_adversarial(recipe, splits, network, tmp_path) -> None:
    made, stored = embed(recipe, splits, network, tmp_path)
    assert made
    points = stored["result"]["points"]
    assert stored["result"]["columns"] == ["split", "index", "class", "adversarial", "x", "y"]
    kept = stored["settings"]["classes"]
    assert len(kept) == 3 and kept == sorted(kept)
    found = Counter((split, label, made) for split, _, label, made, _, _ in points)
    assert found == {(split, label, made): 4 for split in ("test", "train") for label in kept for made in (0, 1)}
    for split, index, label, *_ in points:
        assert getattr(splits, split).labels[index] == label
    assert stored["result"]["perplexity"] == {"test": 23 / 3, "train": 23 / 3}
    assert stored["settings"]["eps"] == 0.1 and stored["settings"]["steps"] == 20


def test_the_features_are_those_of_the_images_and_of_their_pgd20(recipe, splits, network, monkeypatch, tmp_path):
    seen: list[torch.Tensor] = []
    attacked: list[torch.Tensor] = []
    step = PGD.__call__

    def attack(self: PGD, *arguments: Any) -> Any:
        result = step(self, *arguments)
        attacked.append(result.images)
        return result

    def places(features: torch.Tensor) -> torch.Tensor:
        seen.append(features)
        return features[:, :2]

    monkeypatch.setattr(PGD, "__call__", attack)
    monkeypatch.setattr(embedding, "tsne", places)
    _, stored = embed(recipe, splits, network, tmp_path)
    indices = [index for split, index, _, made, *_ in stored["result"]["points"] if split == "test" and not made]
    natural = splits.test.images[indices].float() / 255
    assert float((attacked[0] - natural).abs().max()) <= 0.1 + 1e-6
    with evaluating(network), torch.no_grad():
        expected = torch.cat([network(natural).features, network(attacked[0]).features])
    assert torch.allclose(seen[0], expected, atol=1e-6)
    stored_places = torch.tensor([point[4:] for point in stored["result"]["points"] if point[0] == "test"])
    assert torch.allclose(stored_places, expected[:, :2], atol=1e-3)


def test_the_same_points_twice_and_a_finished_one_is_found_again(
    recipe, splits, network, tmp_path, monkeypatch
) -> None:
    _, first = embed(recipe, splits, network, tmp_path / "a")
    _, again = embed(recipe, splits, network, tmp_path / "b")
    assert first == again

    def fail(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(embedding, "tsne", fail)
    made, found = embed(recipe, splits, network, tmp_path / "a")
    assert not made and found == first
    other = check({"eval": {"eps": 0.2, "batch_size": 16}})
    for changed in ((other, splits, network), (recipe, splits, trained(splits, seed=5))):
        with pytest.raises(AssertionError, match="computed again"):
            embed(*changed, tmp_path / "a")
    with pytest.raises(AssertionError, match="computed again"):
        embed(recipe, splits, network, tmp_path / "a", per_class=3)


def test_runs_show_the_same_images_and_classes(recipe, splits, network, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(embedding, "tsne", lambda features: features[:, :2])
    _, one = embed(recipe, splits, network, tmp_path / "a")
    other = check({"eval": {"eps": 0.2}, "run": {"seed": 7}})
    _, two = embed(other, splits, trained(splits, seed=5), tmp_path / "b")
    assert [point[:4] for point in one["result"]["points"]] == [point[:4] for point in two["result"]["points"]]
    assert one["settings"]["test_digest"] == two["settings"]["test_digest"]
    assert one["settings"]["weights_digest"] != two["settings"]["weights_digest"]


def test_choices() -> None:
    labels = torch.arange(100).repeat(3)
    ten = embedding.choose_classes(labels, 10)
    assert len(set(ten)) == 10 and ten == sorted(ten) and ten != list(range(10))
    assert embedding.choose_classes(labels, 10) == ten
    assert embedding.choose_classes(torch.tensor([2, 5, 2]), 10) == [2, 5]  # classes without an image are passed over
    chosen = embedding.choose_images(labels, [4, 90], 2).tolist()
    assert [labels[index].item() for index in chosen].count(4) == 2 and len(chosen) == 4
    assert embedding.choose_images(labels, [4], 50).tolist() == [4, 104, 204]


@pytest.mark.parametrize(("points", "expected"), [(1000, 30.0), (91, 30.0), (31, 10.0), (2, 1 / 3)])
def test_perplexity_is_30_or_less(points, expected) -> None:
    assert embedding.perplexity(points) == pytest.approx(expected)


def test_neighbours_stay_neighbours() -> None:
    draw = torch.Generator().manual_seed(0)
    centres = 20 * torch.eye(3, 8)
    labels = torch.arange(3).repeat(8)
    places = embedding.tsne(centres[labels] + torch.randn(24, 8, generator=draw))
    distances = torch.cdist(places, places).fill_diagonal_(torch.inf)
    assert torch.equal(labels[distances.argmin(dim=1)], labels)


def test_features_that_cannot_be_embedded_are_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        embedding.tsne(torch.tensor([[0.0, torch.nan], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="the same"):
        embedding.tsne(torch.ones(5, 4))
    assert embedding.tsne(torch.tensor([[0.0, 1.0], [1.0, 2.0]])).shape == (2, 2)


def test_the_engine_embeds_a_run_and_leaves_it_as_it_was(make_folder) -> None:
    rundir = make_folder(eval__topology=False, eval__attacks=[], eval__checkpoints=["last"], schedule__epochs=1)
    assert engine(rundir) == 0
    before = rundir.events.read_bytes(), (rundir.path / "exit.json").read_bytes()
    arguments = ("--embed", "--checkpoint", "last", "--classes", "3", "--per-class", "5")
    first = run_engine(rundir, *arguments)
    assert (first.returncode, first.stdout) == (0, "t-SNE of last: done\n"), first.stderr
    assert (rundir.events.read_bytes(), (rundir.path / "exit.json").read_bytes()) == before
    stored = json.loads(report.path(rundir, "last", "tsne", "json").read_text())
    assert len(stored["result"]["points"]) == 2 * 2 * 3 * 5
    assert stored["settings"]["rule"] == "last epoch"
    assert "--per-class must be" in run_engine(rundir, "--embed", "--per-class", "0").stderr
