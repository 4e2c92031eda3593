"""Runs AutoAttack for test_autoattack.py in a process of its own, and prints what happened as JSON.

The package takes away the trace function, and with it the coverage of whatever comes after; and what it does to the
process is best seen from a fresh one.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import torch
from pyautoattack import AutoAttack
from safetensors import safe_open
from tiny import tiny_splits, trained
from torch import nn

from engine.attacks.autoattack import StateFile, autoattack, form
from engine.evaluate.accuracy import images_of
from engine.evaluate.run import Stopped, evaluate_checkpoint
from engine.recipe import check
from engine.rundir import RunDir

EPS, BATCH = 0.1, 8
CPU = torch.device("cpu")


def setting(classes=10, n=12):
    splits = tiny_splits(classes=classes, test=n)
    network = trained(splits).eval()
    return network, images_of(splits.test, torch.arange(n), CPU), splits.test.labels


def adapted(network, x, y, **options):
    return autoattack(network, x, y, **({"eps": EPS, "seed": 0, "batch_size": BATCH, "device": CPU} | options))


def told(result):
    return {
        "correct": result.correct.tolist(), "predictions": result.predictions.tolist(), "survivors": result.survivors,
        "warnings": result.warnings, "standard": result.form.standard, "version": result.form.version,
        "implementation": result.implementation, "seed": result.seed, "batch_size": result.batch_size,
    }  # fmt: skip


class Patience:
    """A poll that lets `calls` batches pass."""

    def __init__(self, calls):
        self.left = calls

    def __call__(self):
        if self.left == 0:
            raise Stopped
        self.left -= 1


def interrupted(network, x, y, state, patience):
    """Result of calls that are stopped again and again, and the number of stops."""
    for stops in range(100):
        try:
            return adapted(network, x, y, state=state, poll=Patience(patience)), stops
        except Stopped:
            continue
    raise AssertionError("no progress")


def same():
    """The package's standard version in one call, and the adapter with interruptions."""
    network, x, y = setting()
    logits = nn.Module()
    logits.forward = lambda images: network(images).logits
    package = AutoAttack(logits, eps=EPS, seed=0, device="cpu", version="standard")
    trace = sys.gettrace()
    _, predictions = package.run_standard_evaluation(x, y, batch_size=BATCH)
    sys.settrace(trace)
    state = StateFile(Path(tempfile.mkdtemp()) / "aa.state", "this")
    parts, stops = interrupted(network, x, y, state, 3)

    finished = Patience(0)  # nothing is left to do, so nothing is polled
    repeated = adapted(network, x, y, state=state, poll=finished)
    started_afresh = []
    for other in (StateFile(state.path, "another"), None):
        if other is None:
            state.path.write_bytes(state.path.read_bytes()[:50])
        try:
            adapted(network, x, y, state=other or state, poll=Patience(0))
        except Stopped:
            started_afresh.append(True)
    return {
        "package": (predictions == y).tolist(), "parts": told(parts), "repeated": told(repeated),
        "stops": stops, "started_afresh": started_afresh,
    }  # fmt: skip


def few():
    """Fewer classes than the standard form needs; two of them without Square, which is slow and the same for all."""
    found = {}
    for classes in (2, 3):
        network, x, y = setting(classes, n=4)
        state = StateFile(Path(tempfile.mkdtemp()) / "aa.state", "this")
        try:
            adapted(network, x, y, state=state, poll=Patience(len(form(classes).attacks)))
        except Stopped:
            with safe_open(state.path, framework="pt") as file:
                found[classes] = json.loads(file.metadata()["progress"])["survivors"]
    network, x, y = setting(5, n=4)
    return found | {5: adapted(network, x, y).survivors}


def masked():
    """A network whose gradients are zero almost everywhere, so that all attacks run; and what they leave behind."""
    network, x, y = setting(n=4)

    class Rounded(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network
            self.training = False

        def forward(self, images):
            return self.network((images * 8).round() / 8)

    network.head.bias.requires_grad_(False)
    messages = []
    handler = logging.Handler()
    handler.emit = messages.append
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    trace = sys.gettrace() or (lambda *_: None)
    sys.settrace(trace)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    result = adapted(Rounded(), x, y)
    logger = logging.getLogger("auto-attack")
    left = {
        "trace": sys.gettrace() is trace,
        "rng": torch.equal(before, torch.get_rng_state()),
        "gradients": [name for name, p in network.named_parameters() if p.grad is not None],
        "frozen": [name for name, p in network.named_parameters() if not p.requires_grad],
        "training": any(module.training for module in network.modules()),
        "messages": len(messages),
        "logger": [logger.level, logger.propagate, len(logger.handlers)],
    }
    return {"result": told(result), "left": left}


def checkpoint():
    """A whole evaluation with AutoAttack on a subset, stopped once inside it."""
    splits = tiny_splits()
    network = trained(splits)
    recipe = check({"eval": {"attacks": ["aa"], "aa_examples": 4, "eps": 0.3, "batch_size": 4, "topology": False}})
    rundir = RunDir(Path(tempfile.mkdtemp()))
    events = []

    def attempt(should_stop):
        evaluate_checkpoint(
            recipe=recipe, splits=splits, network=network, standard=None, rundir=rundir, device=CPU,
            checkpoint={"name": "best", "epoch": 2, "rule": "best pgd10 on validation"},
            emit=lambda event, **fields: events.append({"event": event, **fields}), should_stop=should_stop,
        )  # fmt: skip

    state = rundir.evaluations / "best-aa.state"
    try:
        attempt(state.exists)
    except Stopped:
        events.append({"event": "stopped", "files": sorted(path.name for path in rundir.evaluations.iterdir())})
    attempt(lambda: False)
    return {"events": events, "files": sorted(path.name for path in rundir.evaluations.iterdir())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({work.__name__: work() for work in (same, few, checkpoint, masked)}))
