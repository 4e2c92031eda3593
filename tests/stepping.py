"""One step of a training method on the tiny network, and the comparison of its loss and gradients with a formula."""

import numpy as np
import pytest
import torch
from conftest import carry_out
from oracles.network import TorchNetwork, forward, gradient, track, weights
from oracles.pgd import attack as climb

from engine import events, recipe
from engine.attacks.training import training_attack
from engine.step import Batch, Position, Step

LABELS = [0, 1, 2, 3, 1]
# Settings for `trained`: both checkpoints are evaluated under an attack.
EVALUATED = {"eval__attacks": ["pgd20"], "eval__checkpoints": ["best", "last"], "eval__topology": False}


def position(epoch=1, epochs=2, batch=0):
    return Position(epoch=epoch, epochs=epochs, batch=batch, batches=3)


def tiny_batch(seed=0, labels=LABELS, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(len(labels), 1, 2, 3, generator=generator, dtype=torch.float64)
    return Batch(x.to(dtype), torch.tensor(labels), torch.arange(len(labels)))


def predicted(network, batch):
    """`batch` with the labels that `network` predicts in eval mode, so that attacks have something to cross."""
    logits = forward(weights(network), batch.x.numpy(), False)[1]
    return Batch(batch.x, torch.tensor([int(np.argmax(row)) for row in logits]), batch.index)


def attacked(method, network, batch, here, seed=0, **attack):
    """What the training attack of `method` makes of `batch`; None for a method without one."""
    section = recipe.Attack(**{"eps": 0.2, "step_size": 0.05, "steps": 3, **attack})
    climber = training_attack(section, method)
    generator = torch.Generator().manual_seed(seed + 1)
    perturbed = None if climber is None else method.perturb(network, batch, climber, here, generator)
    network.made = list(network.calls)
    network.calls.clear()
    return perturbed


def step_on(network, batch, perturbed, here=None, standard=None):
    """A step of M' `network` whose forwards are not yet run."""
    return Step(network, standard, batch, perturbed, lambda net, images, purpose: net(images), here or position())


def run_forwards(method, step):
    """The forwards that the engine asks for, in the method's order."""
    for name in method.forwards:
        getattr(step, name)


def total(method, step):
    """L_robust: the sum of its parts."""
    return torch.stack(list(method.losses(step).values())).sum()


def stepped(method, here=None, batch=None, seed=0, standard=None, **attack):
    """(step, M', its weights before the step): x' is made and the method's forwards are run, in train mode."""
    here = here or position()
    network = TorchNetwork(1).train()
    batch = batch or tiny_batch(seed)
    perturbed = attacked(method, network, batch, here, seed, **attack)
    before = weights(network)
    step = step_on(network, batch, perturbed, here, standard)
    run_forwards(method, step)
    return step, network, before


def assert_climbs(step, before, loss):
    """x' is what the formula of the attack that climbs `loss` from a Gaussian start makes of the default batch.

    `before` shows that making it left the weights and the running statistics alone.
    """
    assert all(np.array_equal(before[name], value) for name, value in weights(TorchNetwork(1)).items())
    noise = torch.randn(step.x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, count = step.x.numpy(), len(LABELS)
    start = x + 0.001 * noise.numpy()
    images, _, _ = climb(before, x, LABELS, start, [0.2] * count, [0.05] * count, [3] * count, loss)
    assert np.abs(step.perturbed.images.numpy() - images).max() < 1e-6
    assert np.abs(images - x).max() > 0.1


def assert_formula(method, step, network, before, formula):
    """`formula(weights)` is the loss of `step`, and its derivatives are the parameters' gradients."""
    loss = total(method, step)
    loss.backward()
    assert loss.item() == pytest.approx(formula(before), abs=1e-9)
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert_gradients(network, before, formula)


def assert_gradients(network, before, formula):
    """The derivatives of `formula(weights)` are the gradients, 0 for a parameter that the loss does not reach."""
    for name, parameter in network.named_parameters():
        slope = gradient(lambda value, n=name: formula({**before, n: value}), before[name])
        found = np.zeros_like(slope) if parameter.grad is None else parameter.grad.numpy()
        assert np.abs(found - slope).max() < 1e-6, name


def assert_forwards(method, step, network, before, expected):
    """The loss adds no forward to those of `expected` (of "x" and "x'"), and BatchNorm saw just those, in order."""
    method.losses(step)
    known = {"x": step.x} if step.perturbed is None else {"x": step.x, "x'": step.perturbed.images}
    seen = [images for _, images in network.calls]
    assert [next((name for name in known if torch.equal(known[name], images)), "other") for images in seen] == expected
    assert {mode for mode, _ in network.calls} == {"bn-train"}
    assert_statistics(network, before, [images.numpy() for images in seen])


def assert_statistics(network, before, batches):
    """The running statistics of BatchNorm are those after train-mode forwards on `batches`."""
    mean, variance = track(before, batches)
    assert np.abs(network.norm.running_mean.numpy() - mean).max() < 1e-9
    assert np.abs(network.norm.running_var.numpy() - variance).max() < 1e-9


def trained(make_folder, method, parts, **settings):
    """Train one epoch on digits as the engine does; every part of the loss is logged. Returns the epoch event."""
    short = {"schedule__epochs": 1, "eval__attacks": [], "eval__checkpoints": ["last"]}
    rundir = make_folder(**{**short, **settings}, **{f"method__{key}": value for key, value in method.items()})
    carry_out(rundir)
    log = [event for _, event in events.read(rundir.events.read_bytes())]
    (epoch,) = [event for event in log if event["event"] == "epoch"]
    assert {key for key in epoch if key.startswith("loss_")} - {"loss_topology", "loss_standard"} == {
        "loss_robust", *(f"loss_{part}" for part in parts)
    }  # fmt: skip
    robust = sum(epoch[f"loss_{part}"] for part in parts)
    assert epoch["loss_robust"] == pytest.approx(robust, abs=1e-6 * min(1.0, robust))
    assert ("loss_topology" in epoch) == bool(settings.get("topology__enabled"))
    if settings.get("topology__enabled"):
        assert epoch["l_tp"] > 0
        assert epoch["loss"] == pytest.approx(robust + epoch["loss_topology"], abs=1e-6)
    return epoch


def refused(**options):
    """The keys that the recipe refuses among a method's options."""
    with pytest.raises(recipe.InvalidRecipe) as caught:
        recipe.check({"method": options})
    return sorted(problem.key for problem in caught.value.problems)
