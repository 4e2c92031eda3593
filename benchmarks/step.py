"""What a training step costs, beside a textbook loop: ratios, and where the time goes.

    python benchmarks/step.py [--quick] [--methods at,trades] [--networks resnet-18:16] [--lean] [--threads 1]

Three contenders take steps on the same batches in turn, in one process, so that whatever else the machine does meets
all alike; ratios are medians over the rounds. They are

    textbook  benchmarks/textbook.py, written from the papers as their authors' codes go about it
    float32   the engine, run.precision = float32
    auto      the engine's default

--lean gives all textbook attacks torch.autograd.grad on x alone, as TRADES and MART have it in any case.
Only ratios mean something on a shared machine; with one thread it is processor time that is taken, which others
disturb less. `peak` is the share of the rate that 1024x1024 matrices are multiplied
at in the same type, measured in the same rounds; the operations are counted, not estimated.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from textbook import EPS, STEP, STEPS, Textbook
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from engine import machine, worker
from engine.data.batches import Batches
from engine.recipe import check
from engine.step import Batch

NETWORKS = ("small-cnn:16", "resnet-18:16", "resnet-18:64", "wrn-28-4:0")
METHODS = ("at", "trades", "standard", "mart", "awp")
BATCH = 64
ROUNDS, QUICK = 7, 3
clock: Callable[[], float] = time.perf_counter
SHARES = {"attack": 8, "forward": 9, "backward": 10, "L_TP": 8, "peak": 7}


class Engine:
    """The engine's own step, with a clock in it."""

    def __init__(self, recipe: Any) -> None:
        setup = machine.prepare(recipe.run, recipe.model)
        self.bfloat16, self.spent = setup.bfloat16, dict.fromkeys(("attack", "forward", "L_TP"), 0.0)
        self.trainer = trainer = worker.make_trainer(recipe, setup, cast(Any, None), cast(Any, None))
        trainer.batches = 1
        self.watch(trainer.method, "perturb", "attack")
        self.watch(trainer, "_losses", "forward")
        for term in trainer.regularizers.values():
            self.watch(term, "loss", "L_TP")

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Add up the seconds of a method of `owner`."""
        inner = getattr(owner, name)

        def timed(*given: Any) -> Any:
            begun = clock()
            found = inner(*given)
            self.spent[label] += clock() - begun
            return found

        object.__setattr__(owner, name, timed)

    def step(self, batch: Batch) -> None:
        """One update."""
        self.trainer._set_mode()
        self.trainer.forward.position = ("train", 1, 0)
        self.trainer._train_step(batch)


class Operations(TorchDispatchMode):
    """Counts the floating-point operations of convolutions and matrix products."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=found) if count else 0
        return found


def seconds(work: Callable[[], Any]) -> float:
    """How long it takes."""
    begun = clock()
    work()
    return clock() - begun


def multiply(dtype: torch.dtype) -> Callable[[], Tensor]:
    """A matrix product of 2 * 1024^3 operations."""
    a = torch.randn(1024, 1024).to(dtype)
    return lambda: a @ a


def measure(method: str, network: str, train: bool, data: Path, rounds: int, lean: bool) -> dict[str, Any]:
    """Interleaved steps of all contenders; the figures of one line."""
    arch, width = network.split(":")
    form = {"awp": {"name": "awp", "base": "at"}}.get(method, {"name": method})

    def recipe(precision: str) -> Any:
        return check({
            "data": {"dataset": "npz", "path": str(data), "crop": 4, "flip": True},
            "model": {"arch": arch, "width": int(width)}, "standard": {"arch": arch, "width": int(width)},
            "method": form, "attack": {"eps": EPS, "step_size": STEP, "steps": STEPS},
            "topology": {"enabled": train, "weight": 1.0, "ramp": False},
            "optim": {"batch_size": BATCH, "lr": 0.01}, "run": {"precision": precision, "device": "cpu"},
        })  # fmt: skip

    plain = recipe("float32")
    exact, engine = Engine(plain), Engine(recipe("auto"))
    contenders = {"textbook": Textbook(method, plain, train, lean), "float32": exact, "auto": engine}
    trainer = engine.trainer
    batches = Batches(trainer.splits.train, BATCH, crop=4, padding="zeros", flip=True, seed=1, device="cpu").epoch(1)
    batch = next(batches)
    with Operations() as counter:
        exact.step(batch)
    for one in contenders.values():
        one.step(batch)
    engine.spent = dict.fromkeys(engine.spent, 0.0)
    product = multiply(torch.bfloat16 if engine.bfloat16 else torch.float32)
    taken: dict[str, list[float]] = {name: [] for name in (*contenders, "product")}
    for _ in range(rounds):
        for name, one in contenders.items():
            taken[name].append(seconds(lambda one=one: one.step(batch)))  # type: ignore[misc]
        taken["product"].append(seconds(product))
    base = taken["textbook"]
    against = {
        name: statistics.median(b / own for b, own in zip(base, taken[name], strict=True))
        for name in ("float32", "auto")
    }
    whole, middle = sum(taken["auto"]), statistics.median(taken["auto"])
    shares = {name: spent / whole for name, spent in engine.spent.items()}
    rate = 2 * 1024**3 / statistics.median(taken["product"])
    return {
        "float32": against["float32"], "auto": against["auto"], "images": BATCH / middle,
        "attack": shares["attack"], "forward": shares["forward"] - shares["L_TP"], "L_TP": shares["L_TP"],
        "backward": 1 - shares["attack"] - shares["forward"], "peak": counter.total / middle / rate,
        "bfloat16": engine.bfloat16,
    }  # fmt: skip


def made_up(folder: Path) -> Path:
    """A data set of noise: what an image shows changes no cost."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (320, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(320) % 10
    path = folder / "noise.npz"
    np.savez(path, x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40])
    return path


def main() -> None:
    """Measure what is asked for, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--networks", default=",".join(NETWORKS), help="ARCH:WIDTH, 0 for the usual width")
    parser.add_argument("--train", choices=("both", "with", "without"), default="both", help="TRAIN's term and M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lean", action="store_true", help="no textbook attack asks for gradients of parameters")
    parser.add_argument("--quick", action="store_true", help="at and trades on resnet-18:16, few rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.threads == 1:
        global clock
        clock = time.process_time
    methods = "at,trades" if arguments.quick else arguments.methods
    networks = "resnet-18:16" if arguments.quick else arguments.networks
    rounds = QUICK if arguments.quick else ROUNDS
    print(f"{date.today()}, torch {torch.__version__}, {arguments.threads} of {os.cpu_count()} cores, batch {BATCH}")
    print(f"{'network':14}{'method':10}{'TRAIN':6}{'float32':>8}{'auto':>8}{'images/s':>10}  of the auto step: "
          f"{'attack':>8}{'forward':>9}{'backward':>10}{'L_TP':>8}{'peak':>7}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = made_up(Path(folder))
        for network in networks.split(","):
            for method in methods.split(","):
                for train in {"both": (False, True), "with": (True,), "without": (False,)}[arguments.train]:
                    found = measure(method, network, train, data, rounds, arguments.lean)
                    shares = "".join(f"{found[name]:>{size}.1%}" for name, size in SHARES.items())
                    ratios = "".join(f"{found[name]:>7.2f}x" for name in ("float32", "auto"))
                    precision = "bfloat16" if found["bfloat16"] else "float32"
                    line = f"{network:14}{method:10}{'yes' if train else 'no':6}{ratios}{found['images']:>10.1f}"
                    print(f"{line}  {precision:18}{shares}", flush=True)


if __name__ == "__main__":
    main()
