"""Adversarial logit pairing on a tiny network: losses, gradients, x' and the BatchNorm bookkeeping."""

import numpy as np
import pytest
import torch
from conftest import run_engine
from oracles import alp as oracle
from oracles.network import TorchNetwork, forward, gradient, track, weights
from oracles.pgd import attack as climb

from engine import recipe
from engine.attacks.training import training_attack
from engine.events import read
from engine.methods.alp import Alp
from engine.options import catalog
from engine.step import Batch, Perturbed, Position, Step
from trainctl.recipes.load import resolve

HERE = Position(epoch=1, epochs=2, batch=0, batches=3)
FORMS = [Alp(form=form, weight=weight) for form in ("mixed", "adversarial") for weight in (0.0, 1.0, 2.5)]
Y = torch.tensor([0, 1, 2, 3, 1])


def made(method, seed=0):
    """A step of `method` with real adversarial images, its forwards made in the method's order."""
    generator = torch.Generator().manual_seed(seed)
    batch = Batch(torch.rand(5, 1, 2, 3, generator=generator, dtype=torch.float64), Y, torch.arange(5))
    network = TorchNetwork(1).train()
    before = weights(network)
    attack = training_attack(recipe.Attack(eps=0.2, step_size=0.05, steps=3), method)
    perturbed = method.perturb(network, batch, attack, HERE, torch.Generator().manual_seed(7))
    network.calls.clear()
    step = Step(network, None, batch, perturbed, lambda module, images, purpose: module(images), HERE)
    for name in method.forwards:
        getattr(step, name)
    return step, network, before


@pytest.mark.parametrize("method", FORMS, ids=repr)
def test_loss_and_parameter_gradients_are_those_of_the_formula(method):
    step, network, w = made(method)
    total = torch.stack(list(method.losses(step).values())).sum()
    total.backward()
    x, perturbed, y = step.x.numpy(), step.perturbed.images.numpy(), Y.tolist()

    def formula(w):
        return oracle.loss(w, x, perturbed, y, method.form, method.weight)

    assert total.item() == pytest.approx(formula(w), abs=1e-9)
    for name, parameter in network.named_parameters():
        slope = gradient(lambda a, n=name: formula({**w, n: a}), w[name])
        assert np.abs(parameter.grad.numpy() - slope).max() < 1e-6, name


def test_x_prime_climbs_the_cross_entropy_from_a_gaussian_start():
    step, _, w = made(Alp())
    noise = torch.randn(step.x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    start = step.x.numpy() + 0.001 * noise.numpy()
    images, _, _ = climb(w, step.x.numpy(), Y.tolist(), start, [0.2] * 5, [0.05] * 5, [3] * 5, "ce")
    assert np.abs(step.perturbed.images.numpy() - images).max() < 1e-6
    assert np.abs(images - step.x.numpy()).max() > 0.1


@pytest.mark.parametrize("method", FORMS, ids=repr)
def test_the_running_statistics_see_x_and_then_x_prime(method):
    step, network, w = made(method)
    method.losses(step)
    assert [mode for mode, _ in network.calls] == ["bn-train", "bn-train"]
    assert torch.equal(network.calls[0][1], step.x) and torch.equal(network.calls[1][1], step.perturbed.images)
    mean, variance = track(w, [step.x.numpy(), step.perturbed.images.numpy()])
    assert np.abs(network.norm.running_mean.numpy() - mean).max() < 1e-9
    assert np.abs(network.norm.running_var.numpy() - variance).max() < 1e-9


def test_the_pairing_vanishes_where_nothing_is_perturbed():
    step, network, w = made(Alp())
    same = Perturbed(step.batch, step.x, torch.zeros(5, dtype=torch.int64))
    step = Step(network, None, step.batch, same, lambda module, images, purpose: module(images), HERE)
    parts = Alp(weight=10.0).losses(step)
    assert list(parts) == ["ce", "mse"] and parts["mse"].item() == 0.0
    logits = forward(w, step.x.numpy(), True)[1]
    assert parts["ce"].item() == pytest.approx(oracle.cross_entropy(logits, Y.tolist()), abs=1e-9)


def test_the_recipe_knows_its_options_and_refuses_impossible_ones():
    entry = catalog("Method")["alp"]
    assert {name: option.default for name, option in entry.options.items()} == {"form": "mixed", "weight": 1.0}
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": {"name": "alp", "weight": -0.1, "form": "clean"}})
    assert sorted(problem.key for problem in caught.value.problems) == ["method.form", "method.weight"]
    assert recipe.check({"method": {"name": "alp", "weight": 0.5}}).method.weight == 0.5


@pytest.mark.parametrize("topology", [False, True])
def test_the_engine_trains_it_alone_and_with_the_topology_loss(make_folder, topology):
    rundir = make_folder(
        method__name="alp", topology__enabled=topology, topology__source="both", schedule__epochs=1,
        eval__topology=False,
    )  # fmt: skip
    done = run_engine(rundir)
    assert done.returncode == 0, done.stderr
    (epoch,) = [event for _, event in read(rundir.events.read_bytes()) if event["event"] == "epoch"]
    assert epoch["loss_robust"] == pytest.approx(epoch["loss_ce"] + epoch["loss_mse"])
    assert ("loss_topology" in epoch) == topology


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_shipped_recipes_have_the_settings_of_at_in_the_form_of_trades(data):
    r = resolve(f"{data}-alp").recipe
    assert (r.method.form, r.method.weight, r.model.arch, r.standard.arch) == ("mixed", 1.0, "wrn-34-10", "resnet-18")
    assert (r.schedule.epochs, r.schedule.milestones, r.optim.lr, r.optim.weight_decay) == (100, [75, 90], 0.1, 2e-4)
    assert (r.attack.eps, r.attack.step_size, r.attack.steps) == (0.031, 0.007, 10)
    assert (r.attack.loss, r.attack.start, r.attack.batchnorm) == ("ce", "gaussian", "eval")
