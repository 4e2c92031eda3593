"""What a training step costs, beside a textbook loop: ratios, and where time and memory go.

    python benchmarks/step.py [--quick] [--methods at,trades] [--networks resnet-18:64] [--lean] [--threads 1]

Three contenders take steps on the same batches in turn, in one process, so that whatever else the machine does meets
all alike; ratios are medians over the rounds, of which there are at least 3. They are

    textbook  benchmarks/textbook.py, written from the papers as their authors' codes go about it
    float32   the engine, run.precision = float32
    auto      the engine's default

--lean gives all textbook attacks torch.autograd.grad on x alone, as TRADES and MART have it in any case.
Only ratios mean something on a shared machine; with one thread it is processor time that is taken, which others
disturb less. `peak` is the share of the rate that 1024x1024 matrices are multiplied at in the same type, measured in
the same rounds; the operations are counted, not estimated. `data` is what making the next batch takes, beside the step.
Memory is the most that a step holds above what there was before it: activations, gradients and what is in between, as
torch allocates them.

--profile says, of each line's auto step, which operations take how much of it, by torch's profiler.

All 36 lines take half an hour of one core; batches are of 64 images, but of 16 where a step takes half a minute
otherwise. What a width of 64 costs at 64 images: --networks resnet-18:64 --methods at,trades --train without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import accumulate, count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from textbook import EPS, STEP, STEPS, Textbook
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from engine import machine, worker
from engine.data.batches import Batches
from engine.networks import compile_networks
from engine.recipe import check
from engine.step import Batch

NETWORKS = ("resnet-18:16", "small-cnn:16", "resnet-18:64:16", "wrn-28-4:0:16")
METHODS = ("at", "trades", "standard", "mart", "awp")
BATCH = 64
ROUNDS = range(3, 16)  # of a line: so many that they take
SECONDS = 8.0
clock: Callable[[], float] = time.perf_counter
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler tells of a GPU that it does not find
SHARES = {"attack": 8, "forward": 9, "backward": 10, "L_TP": 7, "data": 7, "peak": 7}


class Engine:
    """The engine's own step, with a clock in it."""

    def __init__(self, recipe: Any) -> None:
        setup = machine.prepare(recipe.run, recipe.model)
        self.bfloat16, self.spent = setup.bfloat16, dict.fromkeys(("attack", "forward", "L_TP"), 0.0)
        self.trainer = trainer = worker.make_trainer(recipe, setup, cast(Any, None), cast(Any, None))
        trainer.batches = 1
        if recipe.run.compile == "on" and (trouble := compile_networks(trainer.networks, setup.device)):
            raise SystemExit(f"torch.compile does not work here: {trouble}")
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

    total = 0.0

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


def peak_memory(work: Callable[[], Any]) -> float:
    """The most that `work` holds at a time above what was held before it, in MB."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return max(accumulate(change for _, change in changes)) / 2**20


def profiled(work: Callable[[], Any]) -> dict[str, float]:
    """Share of the time of `work` that each kind of operation takes by itself, the largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        work()
    events = found.key_averages()
    whole = sum(event.self_cpu_time_total for event in events)
    shares = {event.key: event.self_cpu_time_total / whole for event in events}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def measure(
    method: str, network: str, train: bool, data: Path, rounds: range, lean: bool, compiled: bool
) -> dict[str, Any]:
    """Interleaved steps of all contenders; the figures of one line."""
    arch, width, size = (*network.split(":"), BATCH)[:3]
    images = int(size)
    form = {"awp": {"name": "awp", "base": "at"}}.get(method, {"name": method})

    def recipe(precision: str, compiled: bool = False) -> Any:
        return check({
            "data": {"dataset": "npz", "path": str(data), "crop": 4, "flip": True},
            "model": {"arch": arch, "width": int(width)}, "standard": {"arch": arch, "width": int(width)},
            "method": form, "attack": {"eps": EPS, "step_size": STEP, "steps": STEPS},
            "topology": {"enabled": train, "weight": 1.0, "ramp": False},
            "optim": {"batch_size": images, "lr": 0.01},
            "run": {"precision": precision, "device": "cpu", "compile": "on" if compiled else "auto"},
        })  # fmt: skip

    plain = recipe("float32")
    exact, engine = Engine(plain), Engine(recipe("auto", compiled))
    contenders = {"textbook": Textbook(method, plain, train, lean), "float32": exact, "auto": engine}
    batches = endless(Batches(
        engine.trainer.splits.train, images, crop=4, padding="zeros", flip=True, seed=1, device="cpu"
    ))  # fmt: skip
    batch, memory = next(batches), {}
    for name, one in contenders.items():
        one.step(batch[slice(8)])  # takes the memory that stays
        if compiled:
            one.step(batch)  # or memory and operations would be those of compiling
        with Operations() as counter:
            memory[name] = peak_memory(lambda one=one: one.step(batch))  # type: ignore[misc]
    engine.spent = dict.fromkeys(engine.spent, 0.0)
    product = multiply(torch.bfloat16 if engine.bfloat16 else torch.float32)
    taken: dict[str, list[float]] = {name: [] for name in (*contenders, "product", "data")}
    begun = clock()
    while len(taken["data"]) < rounds.start or (clock() - begun < SECONDS and len(taken["data"]) < rounds.stop - 1):
        for name, one in contenders.items():
            taken[name].append(seconds(lambda one=one: one.step(batch)))  # type: ignore[misc]
        taken["product"].append(seconds(product))
        taken["data"].append(seconds(lambda: next(batches)))
    base, middle = taken["textbook"], {name: statistics.median(times) for name, times in taken.items()}
    against = {
        name: statistics.median(b / own for b, own in zip(base, taken[name], strict=True))
        for name in ("float32", "auto")
    }
    shares = {name: spent / sum(taken["auto"]) for name, spent in engine.spent.items()}
    return {
        "float32": against["float32"], "auto": against["auto"], "images": images / middle["auto"], "memory": memory,
        "attack": shares["attack"], "forward": shares["forward"] - shares["L_TP"], "L_TP": shares["L_TP"],
        "backward": 1 - shares["attack"] - shares["forward"], "data": middle["data"] / middle["auto"],
        "peak": counter.total / middle["auto"] / (2 * 1024**3 / middle["product"]), "bfloat16": engine.bfloat16,
        "profile": lambda: profiled(lambda: engine.step(batch)),
    }  # fmt: skip


def endless(batches: Batches) -> Iterator[Batch]:
    """Full batches, epoch after epoch."""
    for epoch in count(1):
        yield from batches.epoch(epoch)


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
    parser.add_argument("--networks", default=",".join(NETWORKS), help="ARCH:WIDTH[:BATCH], width 0 for the usual")
    parser.add_argument("--train", choices=("both", "with", "without"), default="both", help="TRAIN's term and M")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lean", action="store_true", help="no textbook attack asks for gradients of parameters")
    parser.add_argument("--compile", action="store_true", help="auto with run.compile = on")
    parser.add_argument("--profile", action="store_true", help="operations by their share of the auto step, too")
    parser.add_argument("--quick", action="store_true", help="at and trades on resnet-18:16, few rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.threads == 1:
        global clock
        clock = time.process_time
    methods = "at,trades" if arguments.quick else arguments.methods
    networks = "resnet-18:16" if arguments.quick else arguments.networks
    rounds = range(3, 4) if arguments.quick else ROUNDS
    print(f"{date.today()}, torch {torch.__version__}, {arguments.threads} of {os.cpu_count()} cores")
    print(f"{'':33}{'times as fast as':17}{'':10}{'MB a step:':10}{'':20}  of the auto step:")
    print(f"{'network':17}{'method':10}{'TRAIN':6}{'float32':>8}{'auto':>8}{'images/s':>10}"
          f"{'textbook':>9}{'float32':>9}{'auto':>7}  {'':9}"
          + "".join(f"{name:>{size}}" for name, size in SHARES.items()))  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        data = made_up(Path(folder))
        for network in networks.split(","):
            for method in methods.split(","):
                for train in {"both": (False, True), "with": (True,), "without": (False,)}[arguments.train]:
                    if train and method == "standard":
                        continue  # no x', which L_TP needs
                    found = measure(method, network, train, data, rounds, arguments.lean, arguments.compile)
                    print(line(network, method, train, found), flush=True)
                    if arguments.profile:
                        largest = list(found["profile"]().items())[:8]
                        print("    " + ", ".join(f"{name} {share:.1%}" for name, share in largest))


def line(network: str, method: str, train: bool, found: dict[str, Any]) -> str:
    """The figures of one line as a row of the table."""
    ratios = "".join(f"{found[name]:>7.2f}x" for name in ("float32", "auto"))
    memory = "".join(
        f"{found['memory'][name]:>{size}.0f}" for name, size in (("textbook", 9), ("float32", 9), ("auto", 7))
    )
    shares = "".join(f"{found[name]:>{size}.1%}" for name, size in SHARES.items())
    precision = "bfloat16" if found["bfloat16"] else "float32"
    which = f"{network:17}{method:10}{'yes' if train else 'no':6}"
    return f"{which}{ratios}{found['images']:>10.1f}{memory}  {precision:9}{shares}"


if __name__ == "__main__":
    main()
