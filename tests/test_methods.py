"""The training methods on a tiny network: losses and gradients against formulas, and the BatchNorm bookkeeping."""

import numpy as np
import pytest
import torch
from oracles import methods as oracle
from oracles.network import TorchNetwork, forward, gradient, track, weights

from engine import recipe
from engine.attacks.training import training_attack
from engine.methods.at import At
from engine.methods.lbgat import Lbgat
from engine.methods.standard import Standard
from engine.methods.trades import Trades
from engine.options import catalog, load_class
from engine.step import Batch, Perturbed, Position, Step

METHODS = [
    (At(), lambda m, s, x, p, y: oracle.at(m, x, p, y)),
    (Trades(beta=6.0), lambda m, s, x, p, y: oracle.trades(m, x, p, y, 6.0)),
    (Trades(beta=0.0), lambda m, s, x, p, y: oracle.trades(m, x, p, y, 0.0)),
] + [
    (
        Lbgat(base=base, form=form, beta=3.0, gamma=0.7),
        lambda m, s, x, p, y, base=base, form=form: oracle.lbgat(m, s, x, p, y, base, form, 3.0, 0.7),
    )
    for base in ("at", "trades")
    for form in ("official", "paper")
]
FORWARDS = {"At": ["x'"], "Trades": ["x", "x'"], "Lbgat": ["x'", "x"], "Standard": ["x"]}

HERE = Position(epoch=1, epochs=2, batch=0, batches=3)


def made(method, seed=0):
    """A step of `method`: networks in train mode, real adversarial images, forwards in the method's order."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(5, 1, 2, 3, generator=generator, dtype=torch.float64)
    batch = Batch(x, torch.tensor([0, 1, 2, 3, 1]), torch.arange(5))
    adversarial, standard = TorchNetwork(1).train(), TorchNetwork(2, hidden=3).train()
    attack = training_attack(recipe.Attack(eps=0.2, step_size=0.05, steps=3), method)
    perturbed = None if attack is None else method.perturb(adversarial, batch, attack, HERE, generator)
    adversarial.calls.clear()
    before = (weights(adversarial), weights(standard))
    step = Step(adversarial, standard, batch, perturbed, lambda network, images, purpose: network(images), HERE)
    for name in method.forwards:
        getattr(step, name)
    return step, adversarial, standard, before


@pytest.mark.parametrize(("method", "formula"), METHODS, ids=[repr(method) for method, _ in METHODS])
def test_losses_and_parameter_gradients_are_those_of_the_formula(method, formula):
    step, adversarial, standard, (w, v) = made(method)
    total = torch.stack(list(method.losses(step).values())).sum()
    total.backward()
    x, perturbed, y = step.x.numpy(), step.perturbed.images.numpy(), step.y.tolist()
    assert total.item() == pytest.approx(formula(w, v, x, perturbed, y), abs=1e-9)
    for name, parameter in adversarial.named_parameters():
        slope = gradient(lambda a, n=name: formula({**w, n: a}, v, x, perturbed, y), w[name])
        assert np.abs(parameter.grad.numpy() - slope).max() < 1e-6, name
    for name, parameter in standard.named_parameters():
        slope = gradient(lambda a, n=name: formula(w, {**v, n: a}, x, perturbed, y), v[name])
        found = np.zeros_like(slope) if parameter.grad is None else parameter.grad.numpy()
        assert np.abs(found - slope).max() < 1e-6, name


def test_standard_training_is_the_cross_entropy_of_natural_images():
    step, _, _, (w, _) = made(Standard())
    losses = Standard().losses(step)
    assert list(losses) == ["ce"]
    assert losses["ce"].item() == pytest.approx(
        oracle.cross_entropy(forward(w, step.x.numpy(), True)[1], step.y), abs=1e-9
    )
    with pytest.raises(RuntimeError, match="no adversarial images"):
        _ = step.adversarial


@pytest.mark.parametrize("method", [Standard(), *[method for method, _ in METHODS]], ids=repr)
def test_each_method_moves_the_running_statistics_by_its_own_forwards_in_order(method):
    step, adversarial, standard, (w, v) = made(method)
    method.losses(step)
    names = ["x" if torch.equal(images, step.x) else "x'" for _, images in adversarial.calls]
    assert names == FORWARDS[type(method).__name__]
    assert {mode for mode, _ in adversarial.calls} == {"bn-train"}
    mean, variance = track(w, [images.numpy() for _, images in adversarial.calls])
    assert np.abs(adversarial.norm.running_mean.numpy() - mean).max() < 1e-9
    assert np.abs(adversarial.norm.running_var.numpy() - variance).max() < 1e-9
    assert int(standard.norm.num_batches_tracked) == (1 if method.needs_standard else 0)
    if method.needs_standard:
        assert np.abs(standard.norm.running_mean.numpy() - track(v, [step.x.numpy()])[0]).max() < 1e-9


def test_the_parts_have_the_names_they_are_logged_under():
    names = {repr(method): list(method.losses(made(method)[0])) for method, _ in METHODS}
    assert names[repr(At())] == ["ce"]
    assert names[repr(Trades())] == ["ce", "kl"]
    assert names[repr(Lbgat(base="at", form="official", beta=3.0, gamma=0.7))] == ["mse"]
    assert names[repr(Lbgat(base="trades", form="official", beta=3.0, gamma=0.7))] == ["kl", "mse"]
    assert names[repr(Lbgat(base="at", form="paper", beta=3.0, gamma=0.7))] == ["ce", "mse"]
    assert names[repr(Lbgat(base="trades", form="paper", beta=3.0, gamma=0.7))] == ["ce", "kl", "mse"]


@pytest.mark.parametrize("method", [method for method, _ in METHODS], ids=repr)
def test_extreme_logits_give_finite_losses_and_gradients(method):
    step, adversarial, _, _ = made(method)
    with torch.no_grad():
        adversarial.last.weight *= 1e4
        adversarial.last.bias.copy_(torch.tensor([500.0, -500.0, 0.0, 2000.0]))
    batch = Batch(step.x.float(), step.y, step.batch.index)
    perturbed = Perturbed(batch, step.perturbed.images.float(), step.perturbed.steps_correct)
    networks = adversarial.float(), TorchNetwork(2).float()
    step = Step(*networks, batch, perturbed, lambda network, images, purpose: network(images), HERE)
    assert (step.natural.logits.softmax(1) == 0).any()
    adversarial.zero_grad()
    total = torch.stack(list(method.losses(step).values())).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in adversarial.parameters())


def test_the_command_line_sees_what_the_classes_say():
    known = catalog("Method")
    for name, kind in {"standard": Standard, "at": At, "trades": Trades, "lbgat": Lbgat}.items():
        assert load_class(known[name]) is kind
        assert {key: option.default for key, option in known[name].options.items()} == vars(kind())
        assert known[name].constants.get("adversarial", True) == kind.adversarial
        assert known[name].summary


def test_the_recipe_holds_the_options_to_their_bounds():
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": {"name": "trades", "beta": -1.0}})
    assert [problem.key for problem in caught.value.problems] == ["method.beta"]
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": {"name": "lbgat", "base": "alp", "gamma": -0.5}})
    assert sorted(problem.key for problem in caught.value.problems) == ["method.base", "method.gamma"]
    assert recipe.check({"method": {"name": "lbgat", "form": "paper"}}).method.form == "paper"
