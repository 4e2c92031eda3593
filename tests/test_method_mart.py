"""MART on a tiny network: losses, gradients, x', its weights for misclassified samples, and extreme logits."""

import numpy as np
import pytest
import torch
from oracles import mart as oracle
from stepping import EVALUATED, LABELS, assert_climbs, assert_formula, assert_forwards, refused, stepped, trained

from engine.methods.mart import Mart, boosted_cross_entropy, misclassification_aware_kl
from engine.options import catalog
from trainctl.recipes.load import resolve


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("beta", [0.0, 5.0, 6.0])
def test_loss_and_parameter_gradients_are_those_of_the_formula(beta, seed):
    method = Mart(beta=beta)
    step, network, w = stepped(method, seed=seed)
    assert list(method.losses(step)) == ["bce", "kl"]
    x, images = step.x.numpy(), step.perturbed.images.numpy()
    assert_formula(method, step, network, w, lambda w: oracle.loss(w, x, images, LABELS, beta))


@pytest.mark.parametrize("beta", [0.0, 5.0, 6.0])
def test_x_prime_climbs_the_cross_entropy_from_a_gaussian_start(beta):
    step, _, w = stepped(Mart(beta=beta))
    assert_climbs(step, w, "ce")


def test_the_running_statistics_see_x_and_then_x_prime():
    assert_forwards(Mart(), *stepped(Mart()), ["x", "x'"])


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
        assert refused(name="mart", beta=wrong) == ["method.beta"]


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


def test_the_engine_trains_it_with_the_topology_loss(make_folder):
    topology_loss = {"topology__enabled": True, "topology__source": "natural"}
    trained(make_folder, {"name": "mart"}, ["bce", "kl"], **topology_loss, **EVALUATED)
