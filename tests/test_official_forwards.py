"""method.forwards = "official": which forwards move the running statistics of M', in which order, at which weights."""

import pytest
import torch
from conftest import working

from engine import machine, worker
from engine.data.batches import Batches
from engine.events import EventLog

RICE = {"attack__batchnorm": "train", "attack__start": "uniform"}
ATTACK = ["attacked"] * 2  # TINY takes two steps
# By method: what moves the statistics in the authors' code. "x" and "x'" at w, "+" at w + v, "after" the update.
OFFICIAL = [
    ({"name": "at"}, {}, ["x'"]),
    ({"name": "at", "code": "bag-of-tricks"}, {}, ["x'", "x", "x after"]),
    ({"name": "at", "code": "rice"}, RICE, [*ATTACK, "x'", "x'", "x after"]),
    ({"name": "fat"}, {}, ["x'"]),
    ({"name": "gairat"}, {}, ["x'"]),
    ({"name": "sat"}, {}, ["x'"]),
    ({"name": "mart"}, {}, ["x", "x'"]),
    ({"name": "alp"}, {}, ["x", "x'"]),
    ({"name": "fat", "base": "trades"}, {}, ["x", "x'"]),
    ({"name": "fat", "base": "mart"}, {}, ["x'", "x"]),
    ({"name": "lbgat", "base": "at"}, {}, ["x'", "x"]),
    ({"name": "lbgat"}, {}, ["x'", "x"]),
    ({"name": "trades"}, {}, ["x", "x'", "x"]),
    ({"name": "awp", "base": "trades"}, {}, ["x' +", "x +", "x +"]),
    ({"name": "awp"}, RICE, [*ATTACK, "x'", "x' +", "x after"]),
    ({"name": "ecas"}, {}, ["x", "x'"]),
    ({"name": "ecas", "entropy_mode": "train"}, {}, ["x", "x'"]),
    ({"name": "ecas", "base": "trades"}, {}, ["x", "x", "x'"]),
    ({"name": "ecas", "base": "awp"}, {}, ["x", "x' +", "x after"]),
    ({"name": "las", "strategy_width": 4}, {}, ["x'"]),
    # The reward of LAS-TRADES looks at x and at an x' of its own.
    ({"name": "las", "base": "trades", "strategy_width": 4}, {}, ["x", "attacked", "x", "x'"]),
    ({"name": "las", "base": "awp", "strategy_width": 4}, {}, ["x' +", "x after"]),
    ({"name": "standard"}, {}, ["x"]),
]


def trainer(life):
    """A Trainer as the worker makes it, and its first batch."""
    rundir = life.rundir
    recipe = worker.read_recipe(rundir)
    setup = machine.prepare(recipe.run, recipe.model)
    made = worker.make_trainer(recipe, setup, life, EventLog(rundir.events))
    made.batches = 4
    made._set_mode()
    batches = Batches(made.splits.train, 64, crop=0, padding="zeros", flip=False, seed=1, device="cpu")
    return made, next(batches.epoch(1))


def moved(make_folder, method, settings):
    """Every forward of one step that moved the running statistics of M', in words."""
    keys = {**{f"method__{key}": value for key, value in method.items()}, **settings}
    with working(make_folder(**keys)) as life:
        made, batch = trainer(life)
        network = made.networks.adversarial
        norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
        own = norm.running_mean.data_ptr()
        seen, before = [], {name: p.detach().clone() for name, p in network.named_parameters()}

        def look(module, arguments, output):
            # AWP's stand-in has other statistics, and LAS' copy is another network.
            if module is network and norm.training and norm.running_mean.data_ptr() == own:
                seen.append((arguments[0].detach().clone(), norm.weight.detach().clone(), first.detach().clone()))

        first = next(iter(network.parameters()))
        network.register_forward_hook(look)
        perturb, kept = made.method.perturb, []
        object.__setattr__(made.method, "perturb", lambda *args: kept.append(perturb(*args)) or kept[-1])
        made._train_step(batch)
        start = next(name for name, p in network.named_parameters() if p is first)
        scale = next(name for name, p in network.named_parameters() if p is norm.weight)
        x, images = (kept[-1].batch.x, kept[-1].images) if kept else (batch.x, None)

        def word(image, norm_weight, weight):
            what = "x" if torch.equal(image, x) or torch.equal(image, batch.x) else "attacked"
            if images is not None and torch.equal(image, images):
                what = "x'"
            if not torch.equal(norm_weight, before[scale]):
                return what + " after"  # AWP leaves BatchNorm's own weights alone
            return what if torch.equal(weight, before[start]) else what + " +"

        return [word(*call) for call in seen]


@pytest.mark.parametrize(("method", "settings", "expected"), OFFICIAL, ids=lambda value: str(value)[:60])
def test_the_sequence_is_that_of_the_authors(make_folder, method, settings, expected):
    assert moved(make_folder, {**method, "forwards": "official"}, settings) == expected


def test_by_default_each_forward_is_made_once(make_folder):
    assert moved(make_folder, {"name": "trades"}, {}) == ["x", "x'"]


def test_the_sequence_changes_the_statistics_and_no_gradient(make_folder):
    """After one step of TRADES the weights are the same, bit for bit; the running statistics are not."""
    found = {}
    for forwards in ("shared", "official"):
        with working(make_folder(forwards, method__forwards=forwards)) as life:
            made, batch = trainer(life)
            made._train_step(batch)
            found[forwards] = made.networks.adversarial.state_dict()
    differing = {name for name, value in found["shared"].items() if not torch.equal(value, found["official"][name])}
    assert differing and all("running" in name or "num_batches" in name for name in differing)
