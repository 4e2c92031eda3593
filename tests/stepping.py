"""One step of a training method on the tiny network, and the comparison of its loss and gradients with a formula."""

import json

import numpy as np
import pytest
import torch
from conftest import run_engine
from oracles.network import TorchNetwork, forward, gradient, track, weights

from engine import events, recipe
from engine.attacks.training import training_attack
from engine.step import Batch, Position, Step

LABELS = [0, 1, 2, 3, 1]


def position(epoch=1, epochs=2, batch=0):
    return Position(epoch=epoch, epochs=epochs, batch=batch, batches=3)


def tiny_batch(seed=0, labels=LABELS):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(len(labels), 1, 2, 3, generator=generator, dtype=torch.float64)
    return Batch(x, torch.tensor(labels), torch.arange(len(labels)))


def predicted(network, batch):
    """`batch` with the labels that `network` predicts in eval mode, so that attacks have something to cross."""
    logits = forward(weights(network), batch.x.numpy(), False)[1]
    return Batch(batch.x, torch.tensor([int(np.argmax(row)) for row in logits]), batch.index)


def stepped(method, here=None, batch=None, seed=0, **attack):
    """(step, M', its weights before the step): x' is made and the method's forwards are run, in train mode."""
    here = here or position()
    network = TorchNetwork(1).train()
    batch = batch or tiny_batch(seed)
    section = recipe.Attack(**{"eps": 0.2, "step_size": 0.05, "steps": 3, **attack})
    generator = torch.Generator().manual_seed(seed + 1)
    perturbed = method.perturb(network, batch, training_attack(section, method), here, generator)
    network.made = list(network.calls)
    network.calls.clear()
    before = weights(network)
    step = Step(network, None, batch, perturbed, lambda net, images, purpose: net(images), here)
    for name in method.forwards:
        getattr(step, name)
    return step, network, before


def assert_formula(method, step, network, before, formula):
    """`formula(weights)` is the loss of `step`, and its derivatives are the parameters' gradients."""
    total = torch.stack(list(method.losses(step).values())).sum()
    total.backward()
    assert total.item() == pytest.approx(formula(before), abs=1e-9)
    for name, parameter in network.named_parameters():
        slope = gradient(lambda value, n=name: formula({**before, n: value}), before[name])
        found = np.zeros_like(slope) if parameter.grad is None else parameter.grad.numpy()
        assert np.abs(found - slope).max() < 1e-6, name


def assert_forwards(method, step, network, before, expected):
    """The loss adds no forward to those of `expected` (of "x" and "x'"), and BatchNorm saw just those, in order."""
    method.losses(step)
    names = ["x" if torch.equal(images, step.x) else "x'" for _, images in network.calls]
    assert names == expected
    assert {mode for mode, _ in network.calls} == {"bn-train"}
    mean, variance = track(before, [images.numpy() for _, images in network.calls])
    assert np.abs(network.norm.running_mean.numpy() - mean).max() < 1e-9
    assert np.abs(network.norm.running_var.numpy() - variance).max() < 1e-9


def trained(make_folder, method, parts, **settings):
    """Train one epoch on digits with the real engine; every part of the loss is logged. Returns the epoch event."""
    short = {"schedule__epochs": 1, "eval__attacks": [], "eval__checkpoints": ["last"]}
    rundir = make_folder(**short, **{f"method__{key}": value for key, value in method.items()}, **settings)
    done = run_engine(rundir)
    assert done.returncode == 0, done.stderr
    assert json.loads((rundir.path / "exit.json").read_text())["status"] == "done"
    log = [event for _, event in events.read(rundir.events.read_bytes())]
    (epoch,) = [event for event in log if event["event"] == "epoch"]
    assert {key for key in epoch if key.startswith("loss_")} - {"loss_topology", "loss_standard"} == {
        "loss_robust", *(f"loss_{part}" for part in parts)
    }  # fmt: skip
    robust = sum(epoch[f"loss_{part}"] for part in parts)
    assert epoch["loss_robust"] == pytest.approx(robust, abs=1e-6)
    if settings.get("topology__enabled"):
        assert epoch["l_tp"] > 0
        assert epoch["loss"] == pytest.approx(robust + epoch["loss_topology"], abs=1e-6)
    return epoch


def refused(**options):
    """The keys that the recipe refuses among a method's options."""
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": options})
    return sorted(problem.key for problem in caught.value.problems)
