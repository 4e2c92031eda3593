"""P-SAT: the difficulty, the gate's schedules, the gated attack, its loss and gradients."""

import numpy as np
import pytest
import torch
from oracles import methods as losses
from oracles import sat as oracle
from oracles.network import TorchNetwork, forward
from stepping import (
    assert_formula,
    assert_forwards,
    attacked,
    position,
    predicted,
    refused,
    stepped,
    tiny_batch,
    trained,
)

from engine import recipe
from engine.methods.at import At
from engine.methods.sat import Sat, difficulty
from engine.options import catalog, load_class
from trainctl.recipes.load import resolve

ATTACK = {"eps": 0.4, "step_size": 0.05, "steps": 6, "start": "none"}


def right():
    """A batch that the network classifies correctly."""
    return predicted(TorchNetwork(1), tiny_batch(labels=[0] * 7))


def gated(gate):
    return Sat(gate=gate, gate_end=gate)


def test_difficulty_is_the_probability_gap():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 0.0, 0.0], [300.0, -300.0, 0.0], [300.0, -300.0, 0.0]])
    y = torch.tensor([0, 2, 0, 1])
    rows = [oracle.gap(row, label) for row, label in zip(logits.double().numpy(), y.tolist(), strict=True)]
    assert difficulty(logits, y).tolist() == pytest.approx(rows, abs=1e-6)
    assert rows[1:] == pytest.approx([0.0, -1.0, 1.0])
    assert difficulty(logits.bfloat16(), y).dtype == torch.float32


def test_the_linear_schedule():
    method = Sat()
    for epoch in range(1, 101):
        expected = oracle.linear(epoch - 1, 30, 70, 0.0, 0.4)
        assert method.limit(position(epoch, 100)) == pytest.approx(expected), epoch


@pytest.mark.parametrize(("epochs", "end"), [((40, 60, 80), 0.4), ((30, 45, 60), 1.0)])
def test_the_schedule_in_steps(epochs, end):
    method = Sat(
        gate_end=end, gate_epoch=epochs[0] + 1, gate_every=epochs[1] - epochs[0], gate_rises=len(epochs)
    )  # fmt: skip
    for epoch in range(1, 101):
        assert method.limit(position(epoch, 100)) == pytest.approx(oracle.steps(epoch - 1, epochs, 0.0, end)), epoch


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_the_schedules_of_the_recipes(data):
    ends = {"sat": (30, 31, 50, 70, 100), "sat-steps": (40, 41, 61, 81, 100)}
    expected = {"sat": [0.0, 0.01, 0.2, 0.4, 0.4], "sat-steps": [0.0, 0.4 / 3, 0.8 / 3, 0.4, 0.4]}
    for name, epochs in ends.items():
        method = Sat(**recipe.own_options(resolve(f"{data}-{name}").recipe, "method"))
        assert [method.limit(position(epoch, 100)) for epoch in epochs] == pytest.approx(expected[name])


@pytest.mark.parametrize("gate", [-0.1, 0.0, 0.05])
def test_x_prime_loss_and_gradients_are_those_of_the_formula(gate):
    batch = right()
    step, network, before = stepped(gated(gate), batch=batch, **ATTACK)
    images, taken = oracle.attack(
        before, batch.x.numpy(), batch.y.tolist(), batch.x.numpy(), 0.4, 0.05, 6, gate
    )  # fmt: skip
    assert len(set(taken)) > 1
    assert np.abs(step.perturbed.images.numpy() - images).max() < 1e-9
    y = batch.y.tolist()
    assert_formula(gated(gate), step, network, before, lambda w: losses.at(w, None, images, y))


def test_a_sample_is_moved_across_the_gate_and_no_further():
    batch, gate = right(), 0.0
    step, _, before = stepped(gated(gate), batch=batch, **ATTACK)
    gaps = [
        oracle.gap(row, y)
        for row, y in zip(forward(before, step.perturbed.images.numpy(), False)[1], batch.y.tolist(), strict=True)
    ]
    assert any(gap > gate for gap in gaps)
    again = stepped(gated(gate), batch=batch, **{**ATTACK, "steps": 12})[0].perturbed.images
    crossed = torch.tensor([gap > gate for gap in gaps])
    assert torch.equal(again[crossed], step.perturbed.images[crossed])


def test_a_sample_exactly_at_the_gate_moves_on():
    network = TorchNetwork(1)
    for parameter in network.last.parameters():
        torch.nn.init.zeros_(parameter)  # all probabilities are alike: a difficulty of 0
    batch = tiny_batch(labels=[0] * 7)
    for gate, steps in ((0.0, ATTACK["steps"]), (-1e-9, 0)):
        perturbed = attacked(gated(gate), network, batch, position(), **ATTACK)
        assert perturbed.steps_correct.tolist() == [steps] * 7


def test_an_open_gate_is_adversarial_training_and_a_shut_one_none():
    plain = stepped(At(), batch=right(), **ATTACK)[0].perturbed.images
    assert torch.equal(stepped(gated(1.0), batch=right(), **ATTACK)[0].perturbed.images, plain)
    assert torch.equal(stepped(gated(-1.0), batch=right(), **ATTACK)[0].perturbed.images, right().x)


def test_its_attack_and_its_one_forward():
    assert Sat().attack_form() == ("ce", "uniform")
    step, network, before = stepped(Sat(), batch=right())
    assert {mode for mode, _ in network.made} == {"bn-eval"}
    assert_forwards(Sat(), step, network, before, ["x'"])


def test_the_recipe_holds_the_options_to_their_bounds():
    wrong = {"gate": -1.5, "gate_end": 1.5, "gate_epoch": 0, "gate_every": 0, "gate_rises": 0}
    assert refused(name="sat", **wrong) == sorted(f"method.{key}" for key in wrong)
    assert load_class(catalog("Method")["sat"]) is Sat


@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
@pytest.mark.parametrize(
    ("name", "attack", "epochs", "milestones", "rate"),
    [
        ("sat", (8 / 255, 2 / 255, 10), 100, [41, 61, 81], (0.05, 5e-4, 128)),
        ("sat-steps", (8 / 255, 2 / 255, 10), 100, [41, 61, 81], (0.05, 5e-4, 128)),
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
    trained(make_folder, {"name": "sat"}, ["ce"], topology__enabled=True)
