"""The training methods on a tiny network: losses and gradients against formulas, and the BatchNorm bookkeeping."""

import pytest
import torch
from oracles import methods as oracle
from oracles.network import TorchNetwork, forward, weights
from stepping import assert_formula, assert_forwards, assert_gradients, assert_statistics, step_on, stepped, total

from engine import recipe
from engine.methods.at import At
from engine.methods.lbgat import Lbgat
from engine.methods.standard import Standard
from engine.methods.trades import Trades
from engine.options import catalog, load_class
from engine.step import Batch, Perturbed

METHODS = [
    (At(), lambda m, s, x, p, y: oracle.at(m, x, p, y)),
    (Trades(beta=6.0), lambda m, s, x, p, y: oracle.trades(m, x, p, y, 6.0)),
    (Trades(beta=0.0), lambda m, s, x, p, y: oracle.trades(m, x, p, y, 0.0)),
] + [
    (
        Lbgat(base=base, form=form, beta=3.0, gamma=0.7, alpha=1.3),
        lambda m, s, x, p, y, base=base, form=form: oracle.lbgat(m, s, x, p, y, base, form, 3.0, 0.7, 1.3),
    )
    for base in ("at", "alp", "trades")
    for form in ("official", "paper")
]
FORWARDS = {"At": ["x'"], "Trades": ["x", "x'"], "Lbgat": ["x'", "x"], "Standard": ["x"]}


def made(method):
    """(a step of `method`, M', M, the weights of both before the step)."""
    standard = TorchNetwork(2, hidden=3).train()
    fresh = weights(standard)
    step, adversarial, before = stepped(method, standard=standard)
    return step, adversarial, standard, (before, fresh)


@pytest.mark.parametrize(("method", "formula"), METHODS, ids=[repr(method) for method, _ in METHODS])
def test_losses_and_parameter_gradients_are_those_of_the_formula(method, formula):
    step, adversarial, standard, (w, v) = made(method)
    x, perturbed, y = step.x.numpy(), step.perturbed.images.numpy(), step.y.tolist()
    assert_formula(method, step, adversarial, w, lambda w: formula(w, v, x, perturbed, y))
    assert_gradients(standard, v, lambda v: formula(w, v, x, perturbed, y))


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
    assert_forwards(method, step, adversarial, w, FORWARDS[type(method).__name__])
    assert int(standard.norm.num_batches_tracked) == (1 if method.needs_standard else 0)
    if method.needs_standard:
        assert_statistics(standard, v, [step.x.numpy()])


def test_the_parts_have_the_names_they_are_logged_under():
    names = {repr(method): list(method.losses(made(method)[0])) for method, _ in METHODS}
    assert names[repr(At())] == ["ce"]
    assert names[repr(Trades())] == ["ce", "kl"]
    lbgat = {(m.base, m.form): names[repr(m)] for m, _ in METHODS if isinstance(m, Lbgat)}
    assert lbgat == {
        ("at", "official"): ["mse"],
        ("at", "paper"): ["ce", "mse"],
        ("alp", "official"): ["pairing", "mse"],
        ("alp", "paper"): ["ce", "pairing", "mse"],
        ("trades", "official"): ["kl", "mse"],
        ("trades", "paper"): ["ce", "kl", "mse"],
    }


@pytest.mark.parametrize("form", ["official", "paper"])
def test_lbgat_climbs_the_kl_or_what_its_base_climbs(form):
    at, alp, trades = (Lbgat(base=base, form=form).attack_form() for base in ("at", "alp", "trades"))
    assert at == (("ce", "gaussian") if form == "paper" else ("kl", "gaussian"))
    assert (alp, trades) == (("ce", "gaussian"), ("kl", "gaussian"))
    # x' itself: that of a plain cross-entropy attack, and not that of the KL
    images = {repr(m): made(m)[0].perturbed.images for m in (Lbgat(base="alp", form=form), At(), Trades())}
    on_alp, of_at, of_trades = images.values()
    assert torch.equal(on_alp, of_at) and not torch.equal(on_alp, of_trades)


@pytest.mark.parametrize("method", [method for method, _ in METHODS], ids=repr)
def test_extreme_logits_give_finite_losses_and_gradients(method):
    step, adversarial, _, _ = made(method)
    with torch.no_grad():
        adversarial.last.weight *= 1e4
        adversarial.last.bias.copy_(torch.tensor([500.0, -500.0, 0.0, 2000.0]))
    batch = Batch(step.x.float(), step.y, step.batch.index)
    perturbed = Perturbed(batch, step.perturbed.images.float(), step.perturbed.steps_correct)
    step = step_on(adversarial.float(), batch, perturbed, standard=TorchNetwork(2).float())
    assert (step.natural.logits.softmax(1) == 0).any()
    adversarial.zero_grad()
    loss = total(method, step)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in adversarial.parameters())


def test_the_command_line_sees_what_the_classes_say():
    known = catalog("Method")
    own = {"memory": None}  # of the base, for methods that keep something; no option
    for name, kind in {"standard": Standard, "at": At, "trades": Trades, "lbgat": Lbgat}.items():
        assert load_class(known[name]) is kind
        assert {key: option.default for key, option in known[name].options.items()} | own == vars(kind())
        assert known[name].constants.get("adversarial", True) == kind.adversarial
        assert known[name].summary


def test_the_recipe_holds_the_options_to_their_bounds():
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": {"name": "trades", "beta": -1.0}})
    assert [problem.key for problem in caught.value.problems] == ["method.beta"]
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": {"name": "lbgat", "base": "mart", "gamma": -0.5, "alpha": -0.1}})
    assert sorted(problem.key for problem in caught.value.problems) == [
        "method.alpha", "method.base", "method.gamma",
    ]  # fmt: skip
    assert recipe.check({"method": {"name": "lbgat", "form": "paper"}}).method.form == "paper"
