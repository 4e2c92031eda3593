"""GAIRAT: kappa, the three weightings, when they begin, the weighted loss and its gradients."""

import numpy as np
import pytest
import torch
from oracles import gairat as oracle
from oracles import pgd
from oracles.network import TorchNetwork
from stepping import assert_formula, assert_forwards, position, predicted, refused, stepped, tiny_batch, trained

from engine.methods.gairat import Gairat
from engine.options import catalog, load_class
from engine.recipe import check
from trainctl.recipes.load import resolve

LISTED = [0.999665, 0.997527, 0.982014, 0.880797, 0.5, 0.119203, 0.017986, 0.002473, 0.000335, 0.000045, 0.000006]
NOW = {"lam_epoch": 1, "begin_epoch": 1}


def hit(method, here=None, **attack):
    """A step whose labels are the predictions, so that samples cross the boundary at different times."""
    network = TorchNetwork(1)
    return stepped(method, here, predicted(network, tiny_batch()), **{"steps": 4, "eps": 0.3, **attack})


def test_the_weights_of_kappa_0_to_10_are_those_of_the_paper():
    kappa = torch.arange(11, dtype=torch.float64)
    assert Gairat().weights(kappa, 10).tolist() == pytest.approx(LISTED, abs=5e-7)
    assert Gairat(lam=30.0).weights(kappa, 10).tolist() == pytest.approx([1.0] * 11)


@pytest.mark.parametrize("steps", [2, 5, 7, 10])
@pytest.mark.parametrize("weighting", ["tanh", "sigmoid", "linear"])
def test_each_weighting_is_its_formula(weighting, steps):
    found = Gairat(weighting=weighting, lam=-0.4).weights(torch.arange(steps + 1, dtype=torch.float64), steps)
    assert found.tolist() == pytest.approx([oracle.weight(k, steps, -0.4, weighting) for k in range(steps + 1)])


def test_one_step_has_finite_weights():
    found = Gairat().weights(torch.tensor([0.0, 1.0], dtype=torch.float64), 1)
    assert found.tolist() == pytest.approx([LISTED[0], LISTED[10]], abs=5e-7)


@pytest.mark.parametrize("lam", [-30.0, -1.0, 40.0])
@pytest.mark.parametrize("kappa", [0.0, 10.0])
def test_float32_weights_of_a_batch_never_vanish(lam, kappa):
    weights = Gairat(lam=lam).weights(torch.full((4,), kappa), 10)
    assert torch.isfinite(weights / weights.sum()).all()


@pytest.mark.parametrize(
    ("options", "epochs", "first"),
    [
        ({}, 120, 60),
        ({}, 110, 60),
        ({}, 100, 60),  # Lambda is finite from 30 on, but nothing is weighted before begin_epoch
        ({"begin_epoch": 30}, 100, 30),
        ({"begin_epoch": 30}, 120, 60),
        ({"begin_epoch": 10, "lam_epoch": 10}, 20, 10),
        ({"begin_epoch": 10, "weighting": "linear"}, 20, 10),  # it has no Lambda
    ],
)
def test_when_reweighting_begins(options, epochs, first):
    method = Gairat(**options)
    assert next(e for e in range(1, epochs + 1) if method.reweights(position(e, epochs))) == first
    assert method.reweights(position(epochs, epochs))


def test_before_it_begins_the_loss_is_the_mean_cross_entropy():
    step, network, before = hit(Gairat(), position(59, 120))
    assert step.perturbed.weights.tolist() == [1.0] * 5
    x, y = step.perturbed.images.numpy(), step.y.tolist()
    assert_formula(Gairat(), step, network, before, lambda w: oracle.loss(w, x, y, [1.0] * 5))


@pytest.mark.parametrize("weighting", ["tanh", "sigmoid", "linear"])
def test_images_weights_loss_and_gradients_are_those_of_the_formula(weighting):
    method = Gairat(weighting=weighting, **NOW)
    step, network, before = hit(method, start="none")
    y = step.y.tolist()
    images, _, kappas = pgd.attack(before, step.x.numpy(), y, step.x.numpy(), [0.3] * 5, [0.05] * 5, [4] * 5)
    assert np.abs(step.perturbed.images.numpy() - images).max() < 1e-9
    assert step.perturbed.steps_correct.tolist() == kappas and len(set(kappas)) > 1
    expected = oracle.normalised(kappas, 4, -1.0, weighting)
    assert step.perturbed.weights.tolist() == pytest.approx(expected)
    assert not step.perturbed.weights.requires_grad
    assert_formula(method, step, network, before, lambda w: oracle.loss(w, images, y, expected))


def test_the_attack_starts_uniformly_and_sees_statistics_but_leaves_them():
    assert Gairat().attack_form() == ("ce", "uniform")
    _, network, _ = hit(Gairat(**NOW))
    assert {mode for mode, _ in network.made} == {"bn-eval"}


def test_one_forward_moves_the_running_statistics():
    method = Gairat(**NOW)
    assert_forwards(method, *hit(method), ["x'"])


def test_the_recipe_holds_the_options_to_their_bounds():
    assert refused(name="gairat", weighting="cosine", begin_epoch=0, lam_epoch=-1, lam=-31.0) == [
        "method.begin_epoch", "method.lam", "method.lam_epoch", "method.weighting",
    ]  # fmt: skip
    assert check({"method": {"name": "gairat"}}).method.begin_epoch == 60
    assert load_class(catalog("Method")["gairat"]) is Gairat


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    ("name", "attack", "epochs", "milestones", "rate"),
    [
        ("gairat", (0.031, 0.007, 10), 120, [60, 90, 110], (0.1, 2e-4, 128)),
    ],
)
def test_the_recipes_have_their_authors_settings(data, name, attack, epochs, milestones, rate):
    found = resolve(f"{data}-{name}").recipe
    assert (found.attack.eps, found.attack.step_size, found.attack.steps) == pytest.approx(attack)
    assert (found.schedule.epochs, found.schedule.milestones, found.schedule.gamma) == (epochs, milestones, 0.1)
    assert (found.optim.lr, found.optim.weight_decay, found.optim.batch_size) == rate
    assert found.model.arch == "wrn-34-10" and found.standard.arch == "resnet-18"
    assert found.attack.batchnorm == "eval"


def test_the_engine_trains_with_it(make_folder):
    trained(make_folder, {"name": "gairat", **NOW}, ["ce"], topology__enabled=True)
