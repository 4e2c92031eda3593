"""MART on a tiny network: losses, gradients, x', its weights for misclassified samples, and extreme logits."""

import numpy as np
import pytest
import torch
from conftest import run_engine
from oracles import mart as oracle
from oracles.network import TorchNetwork, gradient, track, weights
from oracles.pgd import attack as climb

from engine import recipe
from engine.attacks.training import training_attack
from engine.events import read
from engine.methods.mart import Mart, boosted_cross_entropy, misclassification_aware_kl
from engine.options import catalog
from engine.step import Batch, Position, Step
from trainctl.recipes.load import resolve

HERE = Position(epoch=1, epochs=2, batch=0, batches=3)
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


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("beta", [0.0, 5.0, 6.0])
def test_loss_and_parameter_gradients_are_those_of_the_formula(beta, seed):
    step, network, w = made(Mart(beta=beta), seed)
    parts = Mart(beta=beta).losses(step)
    assert list(parts) == ["bce", "kl"]
    total = torch.stack(list(parts.values())).sum()
    total.backward()
    x, perturbed, y = step.x.numpy(), step.perturbed.images.numpy(), Y.tolist()
    assert total.item() == pytest.approx(oracle.loss(w, x, perturbed, y, beta), abs=1e-9)
    for name, parameter in network.named_parameters():
        slope = gradient(lambda a, n=name: oracle.loss({**w, n: a}, x, perturbed, y, beta), w[name])
        assert np.abs(parameter.grad.numpy() - slope).max() < 1e-6, name


def test_x_prime_climbs_the_cross_entropy_from_a_gaussian_start():
    step, _, w = made(Mart())
    noise = torch.randn(step.x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    start = step.x.numpy() + 0.001 * noise.numpy()
    images, _, _ = climb(w, step.x.numpy(), Y.tolist(), start, [0.2] * 5, [0.05] * 5, [3] * 5, "ce")
    assert np.abs(step.perturbed.images.numpy() - images).max() < 1e-6


def test_the_running_statistics_see_x_and_then_x_prime():
    step, network, w = made(Mart())
    Mart().losses(step)
    assert [mode for mode, _ in network.calls] == ["bn-train", "bn-train"]
    assert torch.equal(network.calls[0][1], step.x) and torch.equal(network.calls[1][1], step.perturbed.images)
    mean, variance = track(w, [step.x.numpy(), step.perturbed.images.numpy()])
    assert np.abs(network.norm.running_mean.numpy() - mean).max() < 1e-9
    assert np.abs(network.norm.running_var.numpy() - variance).max() < 1e-9


def test_the_boosted_loss_punishes_the_most_likely_wrong_class():
    """p = (0.7, 0.2, 0.1): with label 0 the worst wrong class has 0.2, with label 1 it has 0.7."""
    logits = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64).log()
    for label, worst in ((0, 0.2), (1, 0.7), (2, 0.7)):
        expected = -logits[0, label].item() - np.log(1.0001 - worst + 1e-12)
        assert boosted_cross_entropy(logits, torch.tensor([label])).item() == pytest.approx(expected, abs=1e-12)


def test_a_sample_counts_by_how_unsure_its_natural_prediction_is():
    natural = torch.tensor([[0.9, 0.05, 0.05]], dtype=torch.float64).log()
    robust = torch.tensor([[0.2, 0.4, 0.4]], dtype=torch.float64).log()
    sure = misclassification_aware_kl(natural, robust, torch.tensor([0])).item()
    wrong = misclassification_aware_kl(natural, robust, torch.tensor([1])).item()
    assert wrong / sure == pytest.approx((1.0000001 - 0.05) / (1.0000001 - 0.9), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_logits_give_finite_losses_and_gradients(dtype):
    """Probabilities of exactly 0 and 1 in float32: the textbook form of the KL has a NaN gradient there."""
    natural = torch.tensor([[500.0, 0.0, -500.0], [0.0, 900.0, 0.0]], dtype=dtype, requires_grad=True)
    robust = torch.tensor([[0.0, 800.0, 0.0], [700.0, 0.0, -700.0]], dtype=dtype, requires_grad=True)
    y = torch.tensor([0, 2])
    loss = boosted_cross_entropy(robust, y) + 6 * misclassification_aware_kl(natural, robust, y)
    loss.backward()
    assert loss.dtype == torch.float32 and torch.isfinite(loss)
    assert torch.isfinite(natural.grad).all() and torch.isfinite(robust.grad).all()
    assert robust.grad.abs().max() > 0


def test_the_recipe_knows_its_option_and_refuses_impossible_ones():
    assert catalog("Method")["mart"].options["beta"].default == 6.0
    for wrong in (-1.0, "6", True):
        with pytest.raises(recipe.InvalidRecipe) as caught:
            recipe.check({"method": {"name": "mart", "beta": wrong}})
        assert [problem.key for problem in caught.value.problems] == ["method.beta"]


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_shipped_recipes_have_the_authors_settings(data):
    wide, small = resolve(f"{data}-mart").recipe, resolve(f"{data}-mart-resnet-18").recipe
    for r, arch, beta, epochs, milestones, lr, decay in (
        (wide, "wrn-34-10", 6.0, 90, [75, 90], 0.1, 7e-4),
        (small, "resnet-18", 5.0, 120, [75, 90, 100], 0.01, 3.5e-3),
    ):
        assert (r.model.arch, r.method.beta, r.standard.arch) == (arch, beta, "resnet-18")
        assert (r.schedule.epochs, r.schedule.milestones, r.schedule.gamma) == (epochs, milestones, 0.1)
        assert (r.optim.lr, r.optim.weight_decay, r.optim.batch_size) == (lr, decay, 128)
        assert (r.attack.eps, r.attack.step_size, r.attack.steps, r.attack.start) == (0.031, 0.007, 10, "gaussian")


@pytest.mark.parametrize("topology", [False, True])
def test_the_engine_trains_it_alone_and_with_the_topology_loss(make_folder, topology):
    rundir = make_folder(
        method__name="mart", topology__enabled=topology, topology__source="natural", schedule__epochs=1,
        eval__topology=False,
    )  # fmt: skip
    done = run_engine(rundir)
    assert done.returncode == 0, done.stderr
    (epoch,) = [event for _, event in read(rundir.events.read_bytes()) if event["event"] == "epoch"]
    assert epoch["loss_robust"] == pytest.approx(epoch["loss_bce"] + epoch["loss_kl"])
    assert ("loss_topology" in epoch) == topology
