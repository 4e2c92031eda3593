"""ECAS: the cycle, the radius by entropy, x', the three forms' losses, gradients and bookkeeping."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import awp, pgd
from oracles import ecas as oracle
from oracles import methods as losses
from oracles.network import TorchNetwork, forward, track, weights
from stepping import assert_formula, assert_forwards, position, refused, stepped, tiny_batch, trained
from test_graphs import NoWaiting

from engine import recipe
from engine.attacks.training import training_attack
from engine.methods.ecas import Ecas, entropy, smoothed_cross_entropy
from engine.options import catalog, load_class
from engine.step import Step
from trainctl.recipes.load import resolve

BASES = ["at", "trades", "awp"]
PARTS = {"at": ["ce"], "trades": ["ce", "kl"], "awp": ["ce"]}
FORWARDS = {"at": ["x'"], "trades": ["x", "x'"], "awp": ["x'"]}
FORMULA = {
    "at": lambda w, x, p, y: oracle.smoothed(w, p, y, 0.6),
    "trades": lambda w, x, p, y: losses.trades(w, x, p, y, 3.0),
    "awp": lambda w, x, p, y: losses.at(w, x, p, y),
}
LABELS = [0, 1, 2, 3, 1, 0, 2, 3, 3]


def split(mode):
    """Bounds with at least one sample of the batch above, between and below them."""
    logits = forward(weights(TorchNetwork(1)), tiny_batch(labels=LABELS).x.numpy(), mode == "train")[1]
    found = sorted(oracle.entropy(row) for row in logits)
    return {"entropy_low": (found[2] + found[3]) / 2, "entropy_high": (found[5] + found[6]) / 2, "entropy_mode": mode}


def made(base, mode="eval", epoch=3, **attack):
    method = Ecas(base=base, label=0.6, beta=3.0, gamma=0.05, **split(mode))
    batch = tiny_batch(labels=LABELS)
    return method, *stepped(method, position(epoch), batch, **{"eps": 0.3, "step_size": 0.05, "steps": 3, **attack})


def test_entropy_is_that_of_the_softmax():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, -2.0, 0.5, 3.0], [900.0, -900.0, 0.0, 0.0]])
    assert entropy(logits)[0].item() == pytest.approx(math.log(4))
    assert entropy(logits)[1].item() == pytest.approx(oracle.entropy(logits[1].double().numpy()), abs=1e-6)
    assert entropy(logits)[2].item() == 0.0


@pytest.mark.parametrize(
    ("name", "cycle", "strong"),
    [
        ("ecas", range(3, 13), {10, 11, 12}),
        ("ecas-trades", range(5, 10), {8, 9}),
        ("ecas-awp", range(6, 16), {13, 14, 15}),
    ],
)
@pytest.mark.parametrize("data", ["digits", "cifar10", "cifar100"])
def test_the_cycle_of_the_recipes(data, name, cycle, strong):
    section = resolve(f"{data}-{name}").recipe
    method = Ecas(**recipe.own_options(section, "method"))
    assert section.attack.step_size / section.attack.eps == pytest.approx(0.2)  # steps of 2/10 of the epoch's radius
    uncertain = torch.tensor([method.entropy_high + 0.01, method.entropy_low - 0.01, 0.0, method.entropy_low + 0.01])
    source, drawn = torch.Generator().manual_seed(0), set()
    for epoch in range(1, 61):
        own, radius = method.chosen(uncertain, position(epoch, 60), source)
        assert own.item() == list(cycle)[(epoch - 1) % len(cycle)]
        assert radius[0] == min(cycle) and radius[3] == own and radius[1] == radius[2]
        drawn.add(radius[1].item())
    assert drawn == strong


def test_radii_are_chosen_without_waiting_for_the_device():
    with NoWaiting():
        Ecas().chosen(torch.tensor([0.5, 2.0, 2.3]), position(2, 60), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("base", BASES)
def test_x_prime_has_the_radius_that_the_entropy_asks_for(base, mode):
    method, step, _, before = made(base, mode, start="none")
    x, y = step.x.numpy(), LABELS
    if mode == "train":  # the forward of the entropy is the first that the attack's statistics have seen
        before["norm.running_mean"], before["norm.running_var"] = track(weights(TorchNetwork(1)), [x])
    drawn = 10 + int(torch.randint(3, (), generator=torch.Generator().manual_seed(1)))
    logits = forward(weights(TorchNetwork(1)), x, mode == "train")[1]
    own, radii = oracle.radii(logits, range(3, 13), 2, drawn, method.entropy_high, method.entropy_low)
    assert set(radii) == {3, own, drawn} and own == 5
    eps = [0.3 / 8 * radius for radius in radii]
    images, _, _ = pgd.attack(before, x, y, x, eps, [0.3 / 8 * own * 0.05 / 0.3] * len(y), [3] * len(y))
    if base == "awp":
        images = np.clip(images, x - 0.3, x + 0.3)
    assert np.abs(step.perturbed.images.numpy() - images).max() < 1e-9


@pytest.mark.parametrize("base", BASES)
def test_where_the_attack_starts_and_ends(base):
    method, batch = Ecas(base=base, lowest=4, radii=13, strong=1, entropy_low=99.0, entropy_high=99.0), tiny_batch()
    attack = training_attack(recipe.Attack(eps=0.2, step_size=0.2, steps=4), method)
    network = TorchNetwork(1)
    middle = replace(batch, x=0.5 + 0 * batch.x)  # the pixel range does not clip here
    images = method.perturb(network, middle, attack, position(), torch.Generator().manual_seed(0)).images
    start = (network.calls[1][1] - middle.x).abs().max().item()  # calls[0] is that of the entropy
    end = (images - middle.x).abs().max().item()
    # The largest of 13 radii is 16 eighths of 0.2. AWP starts within 0.2, and comes back to it.
    assert 0.15 < start <= 0.2 if base == "awp" else 0.25 < start <= 0.4
    assert end == pytest.approx(0.2 if base == "awp" else 0.4)


@pytest.mark.parametrize("label", [0.0, 0.25, 0.7, 1.0])
def test_the_smoothed_cross_entropy_is_the_formula(label):
    step, _, before = stepped(Ecas(label=label))
    images, y = step.perturbed.images.numpy(), step.y.tolist()
    found = smoothed_cross_entropy(step.adversarial.logits, step.y, label).item()
    assert found == pytest.approx(oracle.smoothed(before, images, y, label), abs=1e-9)
    assert torch.isfinite(smoothed_cross_entropy(1e4 * torch.eye(4), torch.tensor([1, 1, 2, 3]), label))


@pytest.mark.parametrize("base", BASES)
def test_losses_gradients_and_forwards_are_those_of_the_form(base):
    method, step, network, before = made(base)
    assert list(method.losses(step)) == PARTS[base]
    assert_forwards(method, step, network, before, FORWARDS[base])
    x, images, y = step.x.numpy(), step.perturbed.images.numpy(), LABELS
    assert_formula(method, step, network, before, lambda w: FORMULA[base](w, x, images, y))


def test_the_entropy_in_train_mode_moves_the_running_statistics_once_more():
    first = weights(TorchNetwork(1))
    for mode, seen in (("eval", []), ("train", ["x"])):
        _, step, network, before = made("at", mode)
        assert [call for call, _ in network.made[:2]] == [f"bn-{mode}", "bn-eval"]
        mean, variance = track(first, [step.x.numpy() for _ in seen])
        assert np.abs(before["norm.running_mean"] - mean).max() < 1e-9
        assert np.abs(before["norm.running_var"] - variance).max() < 1e-9
        assert network.training and network.norm.training


@pytest.mark.parametrize("base", BASES)
def test_only_the_awp_form_moves_the_weights(base):
    method, step, network, before = made(base)

    def robust_loss(stand_in):
        again = Step(stand_in, None, step.batch, step.perturbed, lambda n, images, purpose: n(images), step.position)
        return torch.stack(list(method.losses(again).values())).sum()

    x, images, y = step.x.numpy(), step.perturbed.images.numpy(), LABELS
    v = awp.perturbation(before, x, images, y, "at", 0.0, 0.05)
    with method.displaced(network, robust_loss, step.position):
        for name, parameter in network.named_parameters():
            expected = before[name] + (v.get(name, 0.0) if base == "awp" else 0.0)
            assert np.abs(parameter.detach().numpy() - expected).max() < 1e-6, name
    assert all(np.array_equal(value.detach().numpy(), before[name]) for name, value in network.named_parameters())


def test_the_recipe_holds_the_options_to_their_bounds():
    wrong = {
        "base": "alp", "lowest": 0, "radii": 0, "strong": 0, "entropy_high": -1.0, "entropy_low": -1.0,
        "entropy_mode": "both", "label": 1.5, "beta": -1.0, "gamma": -1.0,
    }  # fmt: skip
    assert refused(name="ecas", **wrong) == sorted(f"method.{key}" for key in wrong)
    assert load_class(catalog("Method")["ecas"]) is Ecas


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    ("name", "attack", "epochs", "milestones", "rate"),
    [
        ("ecas", (8 / 255, 1.6 / 255, 10), 110, [100, 105], (0.1, 5e-4, 128)),
        ("ecas-trades", (8 / 255, 1.6 / 255, 10), 110, [100], (0.1, 5e-4, 128)),
        ("ecas-awp", (8 / 255, 1.6 / 255, 10), 200, [101, 151], (0.1, 5e-4, 128)),
    ],
)
def test_the_recipes_have_their_authors_settings(data, name, attack, epochs, milestones, rate):
    found = resolve(f"{data}-{name}").recipe
    assert (found.attack.eps, found.attack.step_size, found.attack.steps) == pytest.approx(attack)
    assert (found.schedule.epochs, found.schedule.milestones, found.schedule.gamma) == (epochs, milestones, 0.1)
    assert (found.optim.lr, found.optim.weight_decay, found.optim.batch_size) == rate
    assert found.model.arch == "wrn-34-10" and found.standard.arch == "resnet-18"
    assert found.attack.batchnorm == "eval"


@pytest.mark.parametrize(("base", "train"), [("at", False), ("trades", True), ("awp", True)])
def test_the_engine_trains_with_it(make_folder, base, train):
    trained(make_folder, {"name": "ecas", "base": base}, PARTS[base], topology__enabled=train)
