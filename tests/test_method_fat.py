"""FAT: samples stop, tolerance is spent, the batch comes back reordered, and each base keeps its loss."""

import numpy as np
import pytest
import torch
from oracles import fat as oracle
from oracles import mart
from oracles import methods as losses
from oracles.network import TorchNetwork
from stepping import assert_formula, assert_forwards, position, predicted, refused, stepped, tiny_batch, trained

from engine import recipe
from engine.attacks.training import training_attack
from engine.methods.at import At
from engine.methods.fat import Fat, friendly
from engine.methods.mart import Mart
from engine.methods.trades import Trades
from engine.options import catalog, load_class
from trainctl.recipes.load import resolve

PLAIN = {"at": At(), "trades": Trades(), "mart": Mart()}
FORWARDS = {"at": ["x'"], "trades": ["x", "x'"], "mart": ["x'", "x"]}
PARTS = {"at": ["ce"], "trades": ["ce", "kl"], "mart": ["bce", "kl"]}
FORMULA = {
    "at": lambda w, x, p, y: losses.at(w, x, p, y),
    "trades": lambda w, x, p, y: losses.trades(w, x, p, y, 3.0),
    "mart": lambda w, x, p, y: mart.loss(w, x, p, y, 3.0),
}
ATTACK = {"eps": 0.3, "step_size": 0.05, "steps": 6, "start": "none"}


def crossing():
    """A batch with labels that are right at first, but for one, on edges of the pixel range too."""
    batch = tiny_batch(labels=[0] * 8)
    batch.x[0, 0, 0, 0], batch.x[1, 0, 0, 0] = 0.0, 1.0
    batch = predicted(TorchNetwork(1), batch)
    batch.y[5] = (batch.y[5] + 1) % 4
    return batch


@pytest.mark.parametrize("tolerance", [0, 1, 3, 6])
@pytest.mark.parametrize("base", ["at", "trades", "mart"])
def test_images_and_order_are_those_of_the_queue(base, tolerance):
    batch = crossing()
    method = Fat(base=base, tolerance=tolerance, tolerance_rises=0, noise=0.0)
    # Without a random start the KL has no slope to climb: it begins a little off x.
    start = {"start": "gaussian"} if base == "trades" else {}
    step, _, before = stepped(method, batch=batch, **{**ATTACK, **start})
    first = batch.x
    if start:
        noise = torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        first = batch.x + 0.001 * noise
    images, order, taken = oracle.attack(
        before, batch.x.numpy(), batch.y.tolist(), first.numpy(), 0.3, 0.05, 6, tolerance,
        "kl" if base == "trades" else "ce",
    )  # fmt: skip
    assert step.batch.index.tolist() == order
    assert np.abs(step.perturbed.images.numpy() - images[order]).max() < 1e-9
    assert torch.equal(step.x, batch.x[order]) and torch.equal(step.y, batch.y[order])
    if tolerance == 0:
        assert taken[5] == 0 and len(set(taken)) > 2 and order != sorted(order)
    assert (step.perturbed.steps_correct <= torch.tensor(taken)[order]).all()


def test_noise_goes_into_each_step_inside_the_projection():
    batch = crossing()
    step, _, before = stepped(Fat(noise=0.02), batch=batch, **ATTACK)
    source = torch.Generator().manual_seed(1)
    noises = [0.02 * torch.randn(batch.x.shape, generator=source, dtype=torch.float64).numpy() for _ in range(6)]
    images, order, _ = oracle.attack(
        before, batch.x.numpy(), batch.y.tolist(), batch.x.numpy(), 0.3, 0.05, 6, 0, noises=noises
    )
    assert step.batch.index.tolist() == order
    assert np.abs(step.perturbed.images.numpy() - images[order]).max() < 1e-9
    assert (step.perturbed.images - step.x).abs().max() <= 0.3 + 1e-12


@pytest.mark.parametrize("base", ["at", "trades", "mart"])
def test_with_tolerance_k_it_is_the_plain_attack(base):
    batch, network = tiny_batch(), TorchNetwork(1)
    method = Fat(base=base, tolerance=4, tolerance_rises=0, noise=0.0)
    attack = training_attack(recipe.Attack(eps=0.3, step_size=0.1, steps=4), method)
    plain = training_attack(recipe.Attack(eps=0.3, step_size=0.1, steps=4), PLAIN[base])
    source = lambda: torch.Generator().manual_seed(4)  # noqa: E731
    found = method.perturb(network, batch, attack, position(), source())
    if base == "at":
        plain = training_attack(recipe.Attack(eps=0.3, step_size=0.1, steps=4, start="uniform"), At())
    assert found.batch.index.tolist() == list(range(5))
    assert torch.equal(found.images, plain(network, batch.x, batch.y, source()).images)
    fewer = Fat(base=base, tolerance=3, tolerance_rises=0, noise=0.0)
    assert not torch.equal(fewer.perturb(network, batch, attack, position(), source()).images, found.images)


@pytest.mark.parametrize("base", ["trades", "mart"])
def test_a_gaussian_start_is_clipped(base):
    batch = crossing()
    step, network, _ = stepped(Fat(base=base), batch=batch, **{**ATTACK, "start": "gaussian"})
    looked = [images for _, images in network.made]
    assert all(images.min() >= 0 and images.max() <= 1 for images in looked)
    assert not torch.equal(looked[-1], step.x)


def test_tolerance_is_spent_at_every_misclassified_look_and_a_stopped_sample_stays():
    y = torch.tensor([0, 0, 0])
    rule = friendly(1, y)
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    looks = [[right, wrong, wrong], [wrong, right, wrong], [right, wrong, right], [wrong, right, right]]
    found = [rule(torch.tensor(look), y, step).tolist() for step, look in enumerate(looks)]
    assert found == [[True, True, True], [True, True, False], [True, False, False], [False, False, False]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10-fat", {1: 0, 50: 0, 51: 1, 90: 1, 91: 2, 120: 2}),
        ("cifar10-fat-trades", {1: 0, 30: 0, 31: 1, 50: 1, 51: 2, 70: 2, 71: 3, 85: 3}),
        ("cifar10-fat-mart", {20: 0, 21: 1, 40: 1, 41: 2, 60: 2, 61: 3, 80: 3, 81: 4, 90: 4}),
        ("digits-fat", {8: 0, 9: 1, 15: 1, 16: 2, 20: 2}),
    ],
)
def test_the_schedule_of_the_tolerance(name, expected):
    method = Fat(**recipe.own_options(resolve(name).recipe, "method"))
    assert {epoch: method.tau(position(epoch, 120)) for epoch in expected} == expected


@pytest.mark.parametrize("base", ["at", "trades", "mart"])
def test_losses_gradients_and_forwards_are_those_of_the_base(base):
    method = Fat(base=base, beta=3.0)
    step, network, before = stepped(method, batch=crossing(), **{**ATTACK, "start": "auto"})
    x, images, y = step.x.numpy(), step.perturbed.images.numpy(), step.y.tolist()
    assert list(method.losses(step)) == PARTS[base]
    assert_forwards(method, step, network, before, FORWARDS[base])
    assert_formula(method, step, network, before, lambda w: FORMULA[base](w, x, images, y))
    assert {mode for mode, _ in network.made} == {"bn-eval"}


def test_what_each_base_climbs():
    assert [Fat(base=base).attack_form() for base in ("at", "trades", "mart")] == [
        ("ce", "uniform"), ("kl", "gaussian"), ("ce", "gaussian"),
    ]  # fmt: skip


def test_the_recipe_holds_the_options_to_their_bounds():
    wrong = {"base": "alp", "beta": -1.0, "noise": -0.1, "tolerance": -1, "tolerance_every": 0, "tolerance_epoch": 0}
    assert refused(name="fat", **wrong) == sorted(f"method.{key}" for key in wrong)
    assert load_class(catalog("Method")["fat"]) is Fat


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    ("name", "attack", "epochs", "milestones", "rate"),
    [
        ("fat", (0.062, 0.007, 10), 120, [60, 90, 110], (0.1, 2e-4, 128)),
        ("fat-trades", (0.031, 0.007, 10), 85, [75], (0.1, 2e-4, 128)),
        ("fat-mart", (0.031, 0.007, 10), 90, [60, 90], (0.1, 2e-4, 128)),
    ],
)
def test_the_recipes_have_their_authors_settings(data, name, attack, epochs, milestones, rate):
    found = resolve(f"{data}-{name}").recipe
    assert (found.attack.eps, found.attack.step_size, found.attack.steps) == pytest.approx(attack)
    assert (found.schedule.epochs, found.schedule.milestones, found.schedule.gamma) == (epochs, milestones, 0.1)
    assert (found.optim.lr, found.optim.weight_decay, found.optim.batch_size) == rate
    assert found.model.arch == "wrn-34-10" and found.standard.arch == "resnet-18"
    assert found.attack.batchnorm == "eval"


@pytest.mark.parametrize(("base", "train"), [("at", True), ("trades", False), ("mart", True)])
def test_the_engine_trains_with_it(make_folder, base, train):
    trained(make_folder, {"name": "fat", "base": base}, PARTS[base], topology__enabled=train)
