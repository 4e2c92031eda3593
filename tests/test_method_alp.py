"""Adversarial logit pairing on a tiny network: losses, gradients, x' and the BatchNorm bookkeeping."""

import pytest
import torch
from oracles import alp as oracle
from oracles.network import forward
from stepping import (
    EVALUATED,
    LABELS,
    assert_climbs,
    assert_formula,
    assert_forwards,
    refused,
    step_on,
    stepped,
    trained,
)

from engine import recipe
from engine.methods.alp import Alp
from engine.options import catalog
from engine.step import Perturbed
from trainctl.recipes.load import resolve

FORMS = [Alp(form=form, weight=weight) for form in ("mixed", "adversarial") for weight in (0.0, 1.0, 2.5)]


@pytest.mark.parametrize("method", FORMS, ids=repr)
def test_loss_and_parameter_gradients_are_those_of_the_formula(method):
    step, network, w = stepped(method)
    x, images = step.x.numpy(), step.perturbed.images.numpy()
    assert_formula(
        method, step, network, w, lambda w: oracle.loss(w, x, images, LABELS, method.form, method.weight)
    )  # fmt: skip


@pytest.mark.parametrize("method", FORMS, ids=repr)
def test_x_prime_climbs_the_cross_entropy_from_a_gaussian_start(method):
    step, _, w = stepped(method)
    assert_climbs(step, w, "ce")


@pytest.mark.parametrize("method", FORMS, ids=repr)
def test_the_running_statistics_see_x_and_then_x_prime(method):
    assert_forwards(method, *stepped(method), ["x", "x'"])


def test_the_pairing_vanishes_where_nothing_is_perturbed():
    step, network, w = stepped(Alp())
    same = Perturbed(step.batch, step.x, torch.zeros(5, dtype=torch.int64))
    step = step_on(network, step.batch, same)
    parts = Alp(weight=10.0).losses(step)
    assert list(parts) == ["ce", "mse"] and parts["mse"].item() == 0.0
    logits = forward(w, step.x.numpy(), True)[1]
    assert parts["ce"].item() == pytest.approx(oracle.cross_entropy(logits, LABELS), abs=1e-9)


def test_the_recipe_knows_its_options_and_refuses_impossible_ones():
    entry = catalog("Method")["alp"]
    assert {name: option.default for name, option in entry.options.items()} == {"form": "mixed", "weight": 1.0}
    assert refused(name="alp", weight=-0.1, form="clean") == ["method.form", "method.weight"]
    assert recipe.check({"method": {"name": "alp", "weight": 0.5}}).method.weight == 0.5


def test_the_engine_trains_it_with_the_topology_loss(make_folder):
    topology_loss = {"topology__enabled": True, "topology__source": "both"}
    trained(make_folder, {"name": "alp"}, ["ce", "mse"], **topology_loss, **EVALUATED)


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_shipped_recipes_have_the_settings_of_at_in_the_form_of_trades(data):
    r = resolve(f"{data}-alp").recipe
    assert (r.method.form, r.method.weight, r.model.arch, r.standard.arch) == ("mixed", 1.0, "wrn-34-10", "resnet-18")
    assert (r.schedule.epochs, r.schedule.milestones, r.optim.lr, r.optim.weight_decay) == (100, [75, 90], 0.1, 2e-4)
    assert (r.attack.eps, r.attack.step_size, r.attack.steps) == (0.031, 0.007, 10)
    assert (r.attack.loss, r.attack.start, r.attack.batchnorm) == ("ce", "gaussian", "eval")
