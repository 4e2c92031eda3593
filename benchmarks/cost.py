"""What +TRAIN adds to a TRADES step, beside what M's own forward and backward cost.

    python benchmarks/cost.py [--network wrn-28-4:0] [--standard resnet-18:32] [--batch 32] [--precisions auto,float32]

A TRADES step, the same with TRAIN, and M and M' by themselves are taken in turn, in one process. Targets: TRAIN adds no
more than M's own forward and backward and 1 % of the step, where M costs a quarter of M' or less; L_TP itself, of 128
images with 640 features, is at most 1 % of a step of as many images, which is taken to be in proportion to --batch.

The attack is the same code on the same images with and without TRAIN, and most of a step, so that its jitter would hide
what is asked for. It is measured in every round; all that comes after it, which is where TRAIN adds something, is taken
several times from the same x'. Times are processor time with one thread. Exits with 1 if a target is missed. A quarter
of an hour; `trainctl reproduce 4` has the seconds of whole epochs for each method of the paper's table.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, cast

import step
import torch
from torch import nn

from engine.data.batches import Batches
from engine.losses import cross_entropy
from engine.networks import build_optimizer
from engine.recipe import check
from engine.regularizers.topology import topology_loss
from engine.step import Perturbed

EPOCH = 50_000  # images, as CIFAR has
AGAIN = 4  # times that what follows the attack is taken in a round
N, D = 128, 640  # the paper's batch, and the features of its WRN-34-10
SHARE = 0.01


class Steps(step.Engine):
    """Training steps of the engine on one batch, split behind the attack."""

    def __init__(self, recipe: Any) -> None:
        super().__init__(recipe)
        size = recipe.optim.batch_size
        batches = Batches(self.trainer.splits.train, size, crop=4, padding="zeros", flip=True, seed=1, device="cpu")
        self.batch = next(batches.epoch(1))
        self.perturbed: Perturbed | None = None
        perturb = self.trainer.method.perturb

        def kept(*given: Any) -> Perturbed:
            self.perturbed = perturb(*given)
            return self.perturbed

        object.__setattr__(self.trainer.method, "perturb", kept)

    @property
    def attacking(self) -> float:
        """Seconds of the attack of the last whole step."""
        return self.spent["attack"]

    def whole(self) -> float:
        """Seconds of a step without its attack, whose seconds are then `attacking`."""
        self.spent["attack"] = 0.0
        return step.seconds(lambda: self.step(self.batch)) - self.attacking

    def rest(self) -> float:
        """Seconds of all that follows the attack: forwards, losses, backward, update."""
        trainer, count = self.trainer, len(self.batch.y)
        parts = trainer._steps(trainer.networks.adversarial, self.batch, self.perturbed)
        return step.seconds(lambda: trainer._update(trainer._losses(part, count) for part in parts))


class Alone:
    """A copy of one network by itself, on natural images."""

    def __init__(self, network: nn.Module, steps: Steps) -> None:
        self.network, self.steps = copy.deepcopy(network).train(), steps
        self.optimizer = build_optimizer(steps.trainer.recipe.optim, list(self.network.parameters()))

    def pass_(self) -> None:
        """Forward and backward."""
        self.optimizer.zero_grad(set_to_none=True)
        output = self.steps.trainer.forward(self.network, self.steps.batch.x, "standard")
        cross_entropy(output.logits, self.steps.batch.y).backward()  # type: ignore[no-untyped-call]

    def normalisation(self) -> float:
        """BatchNorm's share of it, and of its backward."""
        return sum(share for name, share in step.profiled(self.pass_).items() if "batch_norm" in name)


def topology(count: int, adversarial_width: int, standard_width: int) -> Callable[[], None]:
    """L_TP of `count` images with so many features, and its backward."""
    standard, adversarial = torch.rand(count, standard_width), torch.rand(count, adversarial_width, requires_grad=True)
    return lambda: topology_loss(standard, adversarial).backward()  # type: ignore[no-untyped-call]


def measure(recipes: tuple[Any, Any], rounds: int) -> dict[str, Any]:
    """Medians of seconds by name; `extra` and `beyond` are those of differences of neighbours in time."""
    base, train = map(Steps, recipes)
    networks = train.trainer.networks
    alone, adversarial = Alone(networks.standard, train), Alone(networks.adversarial, train)
    widths = networks.widths(tuple(train.batch.x.shape[1:]))
    single = {
        "M": alone.pass_, "M'": adversarial.pass_, "optimizer": alone.optimizer.step,
        "term": topology(len(train.batch.y), *widths), "L_TP": topology(N, D, D),
    }  # fmt: skip
    names = ("attack", "attack + TRAIN", "base", "train", "extra", "beyond", "steps apart", *single)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(-1, rounds):  # the first does not count: kernels are chosen in it
        found: dict[str, list[float]] = {name: [] for name in names}
        whole = base.whole(), train.whole()
        found["attack"], found["attack + TRAIN"] = [base.attacking], [train.attacking]
        found["steps apart"] = [whole[1] + train.attacking - whole[0] - base.attacking]
        for _ in range(AGAIN):
            found["base"].append(base.rest())
            found["train"].append(train.rest())
            found["extra"].append(found["train"][-1] - found["base"][-1])
            for name, work in single.items():
                found[name].append(step.seconds(work))
            found["beyond"].append(found["extra"][-1] - found["M"][-1])
        for name in names if number >= 0 else ():
            taken[name] += found[name]
    return {name: statistics.median(each) for name, each in taken.items()} | {
        "bfloat16": base.bfloat16, "error": statistics.stdev(taken["beyond"]) / len(taken["beyond"]) ** 0.5,
        "norm": alone.normalisation(), "jitter": statistics.stdev(taken["attack"] + taken["attack + TRAIN"]),
    }  # fmt: skip


def report(found: dict[str, Any], batch: int) -> bool:
    """Print it; whether the targets are met."""
    attack = (found["attack"] + found["attack + TRAIN"]) / 2
    whole, steps = attack + found["base"], -(-EPOCH // batch)
    beyond = found["beyond"]

    def line(name: str, taken: float, *more: str) -> None:
        print(f"  {name:50}{taken:10.4f} s {taken / whole:8.3%}  {' '.join(more)}")

    print(f"{'bfloat16' if found['bfloat16'] else 'float32'}, share of a TRADES step:")
    line("TRADES step", whole, f"{whole * steps:.0f} s an epoch of {EPOCH} images")
    line("  of it the attack, of both", attack, f"± {found['jitter']:.2f} from step to step")
    line("TRADES + TRAIN step", whole + found["extra"], f"{(whole + found['extra']) * steps:.0f} s an epoch")
    line("TRAIN adds", found["extra"], f"whole steps, with their attacks, are {found['steps apart']:+.2f} s apart")
    line("M' forward and backward", found["M'"])
    share = found["M"] / found["M'"]
    line("M's own forward and backward", found["M"], f"{share:.0%} of M'; {found['norm']:.0%} of it BatchNorm")
    line("beyond M's own", beyond, f"± {found['error'] / whole:.2%} (standard error); target: 1 %")
    line("  optimizer's step for M", found["optimizer"])
    line("  L_TP of this step, and its backward", found["term"])
    term = found["L_TP"] * batch / N
    line(f"{batch} / {N} of L_TP at N = {N}, D = {D}, and its backward", term, "target: 1 %")
    if share > 1 / 4:
        print("  M costs more than a quarter of M': choose another --standard")
    return beyond <= SHARE * whole and term <= SHARE * whole


def main() -> None:
    """Measure, print, and fail if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="wrn-28-4:0", help="ARCH:WIDTH of M', 0 for the usual width")
    parser.add_argument("--standard", default="resnet-18:32", help="ARCH:WIDTH of M")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precisions", default="auto,float32")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    (arch, width), (own, narrow) = arguments.network.split(":"), arguments.standard.split(":")
    torch.set_num_threads(1)
    step.clock = time.process_time
    print(f"{date.today()}, torch {torch.__version__}, one of {os.cpu_count()} cores; M' {arguments.network}, "
          f"M {arguments.standard}, batch {arguments.batch}, images 32x32")  # fmt: skip
    met = []
    with tempfile.TemporaryDirectory() as folder:
        data = step.made_up(Path(folder))
        for precision in arguments.precisions.split(","):
            both = (check({
                "data": {"dataset": "npz", "path": str(data), "crop": 4, "flip": True},
                "model": {"arch": arch, "width": int(width)}, "standard": {"arch": own, "width": int(narrow)},
                "method": {"name": "trades"}, "topology": {"enabled": enabled, "weight": 1.0, "ramp": False},
                "optim": {"batch_size": arguments.batch, "lr": 0.01},
                "run": {"precision": precision, "device": "cpu", "threads": 1},
            }) for enabled in (False, True))  # fmt: skip
            met.append(report(measure(cast(Any, tuple(both)), arguments.rounds), arguments.batch))
    sys.exit(int(not all(met)))


if __name__ == "__main__":
    main()
