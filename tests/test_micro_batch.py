"""run.micro_batch: a step of which only some images are in a network at a time."""

import copy
import weakref

import pytest
import torch
from conftest import carry_out, working
from folders import make_run
from oracles import topology as oracle
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine import checkpoint, events, machine, recipe, worker
from engine.data.batches import Batches
from engine.events import EventLog
from engine.step import Batch, split
from trainctl.compare.report import compare
from trainctl.home import Home

QUICK = {"schedule__epochs": 1, "eval__attacks": [], "eval__checkpoints": ["last"], "eval__topology": False}
BATCH, MICRO = 32, 12  # parts of 10, 11 and 11
STEPS = [
    {"name": "standard"}, {"name": "at", "code": "bag-of-tricks", "forwards": "official"}, {"name": "trades"},
    {"name": "mart"}, {"name": "alp"}, {"name": "lbgat"}, {"name": "sat", "gate": -0.01}, {"name": "awp"},
    {"name": "gairat", "begin_epoch": 1, "lam_epoch": 1}, {"name": "fat", "tolerance": 1},
    {"name": "fat", "base": "trades"}, {"name": "ecas", "entropy_low": 2.25}, {"name": "ecas", "base": "awp"},
    {"topology__enabled": True, "topology__variant": "star"},  # its first step is one of M alone
]  # fmt: skip


def test_parts_cover_the_batch_alike_in_size_and_never_below_three():
    for count in range(3, 40):
        for at_most in range(count + 3):
            parts = split(count, at_most)
            assert [image for part in parts for image in range(count)[part]] == list(range(count))
            sizes = [part.stop - part.start for part in parts]
            assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 3
            assert at_most == 0 or max(sizes) <= max(at_most, 5)
            if at_most == 0 or at_most >= count:
                assert len(parts) == 1
    assert [part.stop for part in split(128, 100)] == [64, 128]  # not 100 and 28


def without_batchnorm(network):
    """`network` in float64 with nothing left in which an image sees another."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return network.double()


class Watched:
    """A Trainer, one batch in float64, and what it made: `largest` forward, features by network and x'."""

    def __init__(self, life):
        rundir = life.rundir
        settings = worker.read_recipe(rundir)
        self.trainer = worker.make_trainer(
            settings, machine.prepare(settings.run, settings.model), life, EventLog(rundir.events)
        )
        networks, method = self.trainer.networks, self.trainer.method
        self.trainer.batches, self.largest = 4, 0
        self.features = [[] for _ in networks.present()]
        for network, features in zip(networks.present(), self.features, strict=True):
            without_batchnorm(network).register_forward_hook(lambda *call, kept=features: self.look(*call, kept))
        self.trainer._enter(self.trainer.progress)
        self.trainer._set_mode()
        size = settings.optim.batch_size
        batches = Batches(self.trainer.splits.train, size, crop=0, padding="zeros", flip=False, seed=1, device="cpu")
        batch = next(batches.epoch(1))
        self.batch = Batch(batch.x.double(), batch.y, batch.index)
        self.made, perturb = [], method.perturb
        object.__setattr__(method, "perturb", lambda *given: self.made.append(perturb(*given)) or self.made[-1])

    def look(self, network, given, output, kept):
        self.largest = max(self.largest, len(given[0]))
        if network.training:
            kept.append(output.features.detach().numpy())

    def step(self):
        take = self.trainer._train_step if self.trainer.progress.stage == "train" else self.trainer._pretrain_step
        return {name: value.item() for name, value in take(self.batch).items()}


def watched(make_folder, name, micro_batch, **changes):
    with working(make_folder(name, **{"run__micro_batch": micro_batch, "optim__batch_size": BATCH, **changes})) as life:
        return Watched(life)


@pytest.mark.parametrize("settings", STEPS, ids=lambda settings: "-".join(map(str, settings.values())))
def test_without_batchnorm_a_step_in_parts_is_that_of_the_whole_batch(make_folder, settings):
    keys = {f"method__{key}" if "__" not in key else key: value for key, value in settings.items()}
    whole, parts = (watched(make_folder, f"run-{size}", size, **keys) for size in (0, MICRO))
    before = copy.deepcopy(whole.trainer.networks.tensors())
    expected, found = whole.step(), parts.step()
    assert (whole.largest, parts.largest) == (BATCH, 11)
    assert found == pytest.approx(expected, rel=1e-9)
    if whole.made:
        a, b = whole.made[0], parts.made[0]
        assert torch.equal(a.batch.index, b.batch.index)
        assert torch.equal(a.steps_correct, b.steps_correct)
        assert (a.images - b.images).abs().max() < 1e-9
        assert (a.images - a.batch.x).abs().max() > 0.01
    after = parts.trainer.networks.tensors()
    for name, weights in whole.trainer.networks.tensors().items():
        assert (weights - after[name]).abs().max() < 1e-9, name
    assert any(not torch.equal(weights, before[name]) for name, weights in after.items())


@pytest.mark.parametrize(
    ("reading", "divisor"),
    [
        ({}, 1), ({"rescale": True}, BATCH / 128), ({"reduction": "mean-columns"}, BATCH),
        ({"reduction": "mean-pairs"}, BATCH * (BATCH - 1)),
        ({"reduction": "mean-pairs", "diagonal": "include"}, BATCH * BATCH),
    ],
)  # fmt: skip
def test_l_tp_adds_up_every_image_and_looks_for_neighbours_in_its_part(make_folder, reading, divisor):
    keys = {f"topology__{key}": value for key, value in {"enabled": True, "weight": 0.5, **reading}.items()}
    made = watched(make_folder, "run", MICRO, method__name="at", **keys)
    metrics = made.step()
    student, teacher = made.features
    pairs = {"diagonal": reading.get("diagonal", "exclude")}
    total = sum(oracle.loss(h, h_prime, **pairs) for h, h_prime in zip(teacher, student, strict=True))
    assert [len(part) for part in student] == [10, 11, 11]
    assert metrics["l_tp"] == pytest.approx(total / divisor, rel=1e-6)
    assert metrics["loss"] == pytest.approx(metrics["loss_robust"] + 0.5 * metrics["l_tp"], rel=1e-6)


class Memory(TorchDispatchMode):
    """Bytes of all tensors that are made under it, now and at most."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for storage in (leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)):
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.freed, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def freed(self, size):
        self.now -= size


@pytest.mark.parametrize(("method", "topology"), [("trades", True), ("awp", False)])
def test_memory_falls_with_the_parts(make_folder, method, topology):
    def most(size):
        keys = {"method__name": method, "topology__enabled": topology, "optim__batch_size": 160, "model__width": 8}
        made = watched(make_folder, f"run-{size}", size, **keys)
        made.step()
        with Memory() as memory:
            made.step()
        return memory.most

    assert 2 * most(10) < most(0)


def state(rundir):
    """What a run leaves: its checkpoint, and its events without what the clock says."""
    tensors, _ = checkpoint.load(rundir.checkpoint("last"))
    said = [event for _, event in events.read(rundir.events.read_bytes())]
    timeless = [{key: value for key, value in event.items() if key not in events.TIMES} for event in said]
    return {name: tensor.tolist() for name, tensor in tensors.items()}, timeless


def test_a_run_in_parts_says_so_resumes_bit_identically_and_with_the_whole_batch_is_as_ever(make_folder):
    def run(name, size, until=None, **changes):
        rundir = make_folder(name, **QUICK, topology__enabled=True, run__micro_batch=size, **changes)
        if until:
            carry_out(rundir, until)
        carry_out(rundir)
        return state(rundir)

    ever, as_ever = run("ever", 0), run("whole", 64)
    assert ever[0] == as_ever[0] and ever[1][1:] == as_ever[1][1:]
    assert "micro_batch" not in ever[1][0] and as_ever[1][0]["micro_batch"] == 64
    star = {
        "topology__variant": "star",
        "model__arch": "wrn-10-1",
        "model__dropout": 0.2,
    }  # trains M first, in parts too
    parts = run("parts", 20, **star)
    assert run("stopped", 20, 2, **star) == run("stopped-later", 20, 6, **star) == parts
    assert parts[0] != run("other", 0, **star)[0]
    start, warning = parts[1][:2]
    assert start["micro_batch"] == 20
    assert "BatchNorm and L_TP" in warning["message"] and "20" in warning["message"]


def test_each_part_has_dropout_of_its_own(make_folder, monkeypatch):
    purposes = []
    with working(make_folder(run__micro_batch=16, optim__batch_size=BATCH)) as life:
        made = Watched(life)
        run = type(made.trainer.forward).__call__
        monkeypatch.setattr(
            type(made.trainer.forward), "__call__", lambda *given: purposes.append(given[-1]) or run(*given)
        )
        made.step()
    assert purposes == ["natural", "adversarial", "natural 1", "adversarial 1"]


def test_what_needs_a_whole_batch_is_refused_in_the_recipe():
    def problems(**sections):
        try:
            recipe.check(sections)
        except recipe.InvalidRecipe as error:
            return [problem.key for problem in error.problems]
        return []

    parts = {"run": {"micro_batch": 127}}
    assert problems(method={"name": "las"}, **parts) == ["run.micro_batch"]
    assert problems(terms={"crd": {}}, **parts) == ["run.micro_batch"]
    assert problems(terms={"mca": {}}, **parts) == ["run.micro_batch"]
    assert problems(method={"name": "las"}, run={"shrink_on_oom": True}) == ["run.shrink_on_oom"]
    assert problems(method={"name": "las"}, run={"micro_batch": 128}) == []
    assert problems(terms={"rkd": {}}, **parts) == problems(method={"name": "awp"}, **parts) == []


def test_a_comparison_names_it_where_runs_differ_in_it(tmp_path):
    def differing(baseline, train):
        home = Home(tmp_path / f"{baseline}{train}")
        for topology, sizes in ((False, baseline), (True, train)):
            for seed, size in enumerate(sizes):
                made = {"run": {"micro_batch": size}} if size is not None else {}
                folder = make_run(
                    home, f"{topology}{seed}".lower(), topology=topology, seed=seed, recipe_table=made
                )  # fmt: skip
                if size is None:  # a recipe from before the key
                    lines = folder.recipe.read_text().splitlines(keepends=True)
                    folder.recipe.write_text("".join(line for line in lines if "micro_batch" not in line))
        (pair,) = compare(home).pairs
        return {entry["key"]: (entry["baseline"], entry["train"]) for entry in pair.differs}

    assert differing([0], [0]) == differing([None], [0]) == differing([0], [128]) == differing([32], [32]) == {}
    assert differing([0], [32]) == {"run.micro_batch": (0, 32)}
    assert differing([None, 32], [None, 32]) == {"run.micro_batch": ([0, 32], [0, 32])}
