"""AWP on a tiny network: v, the step at w + v, what it leaves behind, and the BatchNorm bookkeeping."""

import numpy as np
import pytest
import torch
from oracles import awp as oracle
from oracles.network import TorchNetwork, weights
from stepping import (
    EVALUATED,
    LABELS,
    assert_climbs,
    assert_statistics,
    attacked,
    position,
    refused,
    run_forwards,
    step_on,
    tiny_batch,
    total,
    trained,
)

from engine.methods.at import At
from engine.methods.awp import Awp, StandIn, perturbed_weights, weight_perturbation
from engine.methods.trades import Trades
from engine.models.build import build
from engine.options import catalog
from engine.recipe import Model
from trainctl.recipes.load import resolve

METHODS = [Awp(base="at", gamma=0.05), Awp(base="trades", gamma=0.1, beta=6.0), Awp(base="trades", beta=0.0)]


class Once:
    """One training step of `method` with real adversarial images, up to the update; the update is the test's."""

    def __init__(self, method, dtype=torch.float64, here=None):
        self.method, self.here = method, here or position()
        self.network = TorchNetwork(1).to(dtype).train()
        self.before = weights(self.network)
        self.batch = tiny_batch(dtype=dtype)
        self.perturbed = attacked(method, self.network, self.batch, self.here)

    def on(self, network):
        return step_on(network, self.batch, self.perturbed, self.here)

    def robust_loss(self, network):
        return total(self.method, self.on(network))

    def displaced(self):
        return self.method.displaced(self.network, self.robust_loss, self.here)

    def loss(self):
        """The loss on M', its forwards in the method's order."""
        step = self.on(self.network)
        run_forwards(self.method, step)
        return total(self.method, step)

    def arguments(self):
        """What the oracle takes behind the weights."""
        m = self.method
        return self.batch.x.numpy(), self.perturbed.images.numpy(), LABELS, m.base, m.beta, m.gamma


def bits(network):
    return {name: value.detach().numpy().tobytes() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_weights_move_by_v_of_the_formula_and_nothing_else_moves(method):
    once = Once(method)
    v = oracle.perturbation(once.before, *once.arguments())
    with once.displaced():
        inside = weights(once.network)
    for name, value in inside.items():
        assert np.abs(value - once.before[name] - v.get(name, 0.0)).max() < 1e-9, name
    for name in oracle.LAYERS:
        share = np.linalg.norm(inside[name] - once.before[name]) / np.linalg.norm(once.before[name])
        assert share == pytest.approx(method.gamma, rel=1e-9)


def test_v_climbs_the_loss():
    once = Once(Awp(gamma=0.01))
    plain = once.robust_loss(StandIn(once.network)).item()
    with once.displaced():
        assert once.robust_loss(StandIn(once.network)).item() > plain


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_loss_and_gradients_are_those_at_the_moved_weights(method):
    once = Once(method)
    loss, slopes, _ = oracle.at_moved_weights(once.before, *once.arguments())
    with once.displaced():
        found = once.loss()
        found.backward()
    assert found.item() == pytest.approx(loss, abs=1e-9)
    for name, parameter in once.network.named_parameters():
        assert np.abs(parameter.grad.numpy() - slopes[name]).max() < 1e-6, name


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_momentum_and_decay_act_at_the_moved_weights_and_v_is_taken_off_behind_them(method):
    """Two steps, so that momentum counts; the second perturbation starts from where the first step ended."""
    once = Once(method)
    optimizer = torch.optim.SGD(once.network.parameters(), lr=0.3, momentum=0.9, weight_decay=0.05)
    w, speeds = once.before, dict.fromkeys(oracle.LEARNED, 0.0)
    for _ in range(2):
        w, speeds = oracle.step(w, speeds, *once.arguments(), rate=0.3, decay=0.05, inertia=0.9)
        with once.displaced():
            optimizer.zero_grad(set_to_none=True)
            once.loss().backward()
            optimizer.step()
    for name, parameter in once.network.named_parameters():
        assert np.abs(parameter.detach().numpy() - w[name]).max() < 1e-9, name
        assert np.abs(w[name] - once.before[name]).max() > 1e-3


def test_weights_come_back_bit_for_bit_where_the_update_does_nothing():
    """In float32, where adding v and subtracting it again does not give the same weights."""
    once = Once(Awp(gamma=0.3), dtype=torch.float32)
    before = bits(once.network)
    for _ in range(50):
        with once.displaced():
            assert bits(once.network) != before
    assert bits(once.network) == before

    named = perturbed_weights(once.network)
    naive = [w.detach().clone() for w in named]
    for _ in range(50):
        perturbation = weight_perturbation(named, once.robust_loss(StandIn(once.network)), 0.3)
        naive = [w + v - v for w, v in zip(naive, perturbation, strict=True)]
    assert any(not torch.equal(w, n) for w, n in zip(named, naive, strict=True))


def test_weights_come_back_when_the_step_fails():
    once = Once(Awp(gamma=0.3), dtype=torch.float32)
    before = bits(once.network)
    with pytest.raises(ZeroDivisionError), once.displaced():
        assert bits(once.network) != before
        raise ZeroDivisionError
    assert bits(once.network) == before


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_running_statistics_see_the_forwards_at_the_moved_weights_alone(method):
    once = Once(method)
    _, _, moved = oracle.at_moved_weights(once.before, *once.arguments())
    x, perturbed = once.batch.x.numpy(), once.perturbed.images.numpy()
    with once.displaced():
        assert once.network.norm.running_mean.tolist() == once.before["norm.running_mean"].tolist()
        assert int(once.network.norm.num_batches_tracked) == 0
        once.network.calls.clear()
        once.loss()
    order = [perturbed] if method.base == "at" else [perturbed, x]
    assert [np.array_equal(images.numpy(), o) for (_, images), o in zip(once.network.calls, order, strict=True)] == [
        True for _ in order
    ]
    assert_statistics(once.network, moved, order)
    assert int(once.network.norm.num_batches_tracked) == len(order)


def test_gradients_and_modes_are_left_alone_by_the_search_for_v():
    once = Once(Awp(gamma=0.1))
    kept = torch.ones_like(once.network.first.weight)
    once.network.first.weight.grad = kept
    with once.displaced():
        assert once.network.first.weight.grad is kept and torch.equal(kept, torch.ones_like(kept))
        assert all(p.grad is None for n, p in once.network.named_parameters() if n != "first.weight")
        assert once.network.training and all(p.is_leaf and p.requires_grad for p in once.network.parameters())


def test_x_prime_is_made_at_the_weights_themselves_in_the_form_of_each_base():
    assert Awp(base="at").attack_form() == ("ce", "uniform")
    assert Awp(base="trades").attack_form() == ("kl", "gaussian")
    once = Once(Awp(base="trades"))
    assert_climbs(once.on(once.network), weights(once.network), "kl")


@pytest.mark.parametrize("base", ["at", "trades"])
def test_before_the_warmup_ends_and_with_gamma_0_it_is_its_base(base):
    plain = At() if base == "at" else Trades(beta=6.0)
    for method, epoch in ((Awp(base=base, warmup=10), 9), (Awp(base=base, gamma=0.0), 20)):
        once = Once(method, here=position(epoch, 20))
        with once.displaced():
            assert once.network.calls == []
            assert all(np.array_equal(value, once.before[name]) for name, value in weights(once.network).items())
            found, expected = once.loss(), sum(plain.losses(once.on(once.network)).values())
        assert found.item() == pytest.approx(expected.item(), abs=1e-12)
    for method, epoch in ((Awp(base=base, warmup=10), 10), (Awp(base=base), 1)):
        once = Once(method, here=position(epoch, 20))
        with once.displaced():
            assert not np.array_equal(weights(once.network)["first.weight"], once.before["first.weight"])


def test_a_layer_without_gradient_stays_where_it_is():
    network = TorchNetwork(1).train()
    loss = sum((p * 0.0).sum() for p in network.parameters())
    assert all(torch.equal(v, torch.zeros_like(v)) for v in weight_perturbation(perturbed_weights(network), loss, 0.1))


@pytest.mark.parametrize("arch", ["small-cnn", "resnet-18", "wrn-10-1", "mobilenetv3-large"])
def test_convolutions_and_linear_layers_are_perturbed_and_buffers_copied_in_every_architecture(arch):
    network = build(Model(arch=arch, width=0 if arch.startswith(("wrn", "mobile")) else 4), 3, 32, 10).train()
    layers = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert {id(p) for p in perturbed_weights(network)} == {id(p) for p in layers}
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    logits = StandIn(network)(torch.rand(4, 3, 32, 32)).logits
    assert logits.requires_grad
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())


def test_the_recipe_knows_its_options_and_refuses_impossible_ones():
    found = {name: option.default for name, option in catalog("Method")["awp"].options.items()}
    assert found == {"base": "at", "gamma": 0.01, "warmup": 0, "beta": 6.0}
    wrong = {"base": "alp", "gamma": -0.1, "warmup": -1, "beta": -2.0}
    assert refused(name="awp", **wrong) == sorted(f"method.{key}" for key in wrong)


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_shipped_recipes_have_the_authors_settings(data):
    at, trades = resolve(f"{data}-at-awp").recipe, resolve(f"{data}-trades-awp").recipe
    for r in (at, trades):
        assert (r.attack.eps, r.attack.step_size, r.attack.steps) == (8 / 255, 2 / 255, 10)
        assert (r.schedule.epochs, r.optim.lr, r.optim.weight_decay, r.eval.best_by) == (200, 0.1, 5e-4, "pgd20")
        assert (r.model.arch, r.standard.arch) == ("wrn-34-10", "resnet-18")
    assert (at.method.base, at.method.gamma, at.method.warmup) == ("at", 0.01, 0)
    assert (trades.method.base, trades.method.gamma, trades.method.warmup, trades.method.beta) == (
        "trades", 0.005, 10, 6.0,
    )  # fmt: skip
    assert (at.attack.start, at.attack.batchnorm, at.schedule.milestones) == ("uniform", "train", [101, 151])
    assert (trades.attack.start, trades.attack.batchnorm, trades.schedule.milestones) == (
        "gaussian",
        "eval",
        [100, 150],
    )
    assert (len(at.model.mean), trades.model.mean, at.standard.mean) == (3, [], [])
    assert (at.run.seed, trades.run.seed) == (0, 1)
    assert (at.data.padding, trades.data.padding) == ("reflect" if data == "cifar10" else "zeros", "zeros")


@pytest.mark.parametrize(("base", "topology"), [("at", False), ("trades", True)])
def test_the_engine_trains_it_alone_and_with_the_topology_loss(make_folder, base, topology):
    parts = ["ce", "kl"] if base == "trades" else ["ce"]
    topology_loss = {"topology__enabled": topology, "topology__source": "both"}
    trained(make_folder, {"name": "awp", "base": base}, parts, **topology_loss, **EVALUATED)
