"""How fast evaluation is: AutoAttack against the package's own loop, and PGD-20 against every image at every step.

    python benchmarks/evaluate.py [--networks small-cnn,resnet-18] [--points 60] [--rounds 3] [--threads 1]

Trains a network on digits for a few epochs with PGD (`-weak`: on natural images), then gives the same `points` test
images to the package and to the engine, in turn, so that a machine whose speed drifts disturbs both alike; each round
has other images. Prints seconds (of CPU time with one thread, else by the clock), their ratio, and in how many examples
the two disagree: for AutoAttack none may. `resnet-18-32` has its images enlarged to 32x32 with three channels.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from engine.attacks.autoattack import autoattack
from engine.attacks.pgd import PGD
from engine.data.base import Source, Split
from engine.data.digits import Digits
from engine.evaluate.accuracy import accuracy, evaluating
from engine.evaluate.protocols import PROTOCOLS, attack, threat
from engine.models.resnet import ResNet18
from engine.models.small_cnn import SmallCNN
from engine.randomness import generator
from engine.recipe import check

NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {  # network, epochs, enlargement
    "small-cnn": (lambda: SmallCNN(1, 8, 10), 20, 1),
    "small-cnn-weak": (lambda: SmallCNN(1, 8, 10), 20, 1),
    "resnet-18": (lambda: ResNet18(1, 10, 16), 12, 1),
    "resnet-18-weak": (lambda: ResNet18(1, 10, 16), 4, 1),
    "resnet-18-32": (lambda: ResNet18(3, 10, 8), 2, 4),
}
BATCH, CPU = 256, torch.device("cpu")
Attack = Callable[[Split], Tensor]
"""Examples -> which of them stand, [n] bool."""


class Logits(nn.Module):
    """The network as the package wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Logits [B, C]."""
        logits: Tensor = self.network(x).logits
        return logits


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="small-cnn,resnet-18", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eps", type=float, default=0.15)
    parser.add_argument("--only", nargs="+", default=["pgd", "aa"], choices=["pgd", "aa"])
    parser.add_argument(
        "--rounding", action="store_true", help="which sizes of a batch change an image's bits, no more"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{date.today()}, {os.cpu_count()} cores, {arguments.threads} threads, torch {version('torch')}, pyautoattack "
        f"{version('pyautoattack')}, Python {platform.python_version()}; digits, eps {arguments.eps:g}"
    )
    for name in arguments.networks.split(","):
        make, epochs, enlarged = NETWORKS[name]
        splits = Digits().load(Source(Path()))
        train, test = enlarge(splits.train, enlarged), enlarge(splits.test, enlarged)
        torch.manual_seed(0)
        network = learn(make(), train, epochs, 0.0 if name.endswith("-weak") else arguments.eps)
        (rounding if arguments.rounding else measure)(name, network, test, arguments)


def rounding(name: str, network: nn.Module, test: Split, arguments: argparse.Namespace) -> None:
    """Say for which sizes a batch's logits and gradients differ from those of the same images among others."""
    whole = test.images[:128].float() / 255
    network.eval().requires_grad_(False)

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        logits: Tensor = network(x).logits
        labels = torch.zeros(len(x), dtype=torch.int64)
        return logits.detach(), torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), x)[0]

    expected = both(whole)
    for what, index in (("logits", 0), ("gradients", 1)):
        sizes = [n for n in range(2, 65) if not torch.equal(both(whole[-n:])[index], expected[index][-n:])]
        print(f"{name}: {what} differ in batches of {sizes or 'no size'}, {arguments.threads} threads", flush=True)


def measure(name: str, network: nn.Module, test: Split, arguments: argparse.Namespace) -> None:
    """Each protocol's PGD-20 and C&W-20 on the whole test set, and AutoAttack on other images each round."""
    parts = [cut(test, range(start, start + arguments.points)) for start in range(0, len(test), arguments.points)]
    for protocol in PROTOCOLS if "pgd" in arguments.only else ():
        for metric in ("pgd20", "cw20"):
            pgd = attack(threat(check({"eval": {"protocol": protocol, "eps": arguments.eps}}).eval, metric, 10))
            before, after = partial(plain, network, pgd), partial(ours, network, pgd)
            compare(f"{name} {metric} ({protocol})", [test] * arguments.rounds, before, after)
    if "aa" not in arguments.only:
        return
    before, after = partial(package, network, arguments.eps), partial(adapter, network, arguments.eps)
    compare(f"{name} AutoAttack", parts[: arguments.rounds], before, after)


def compare(title: str, parts: list[Split], before: Attack, after: Attack) -> None:
    """Run both on each of `parts` in turn, each first every other time, and print what came out."""
    seconds: tuple[list[float], list[float]] = ([], [])
    standing = total = differ = 0
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for turn, part in enumerate(parts):
        outcomes = [torch.empty(0), torch.empty(0)]
        for side in (turn % 2, 1 - turn % 2):
            begun = clock()
            outcomes[side] = (before, after)[side](part)
            seconds[side].append(clock() - begun)
        total += len(part)
        standing += int(outcomes[0].sum())
        differ += int((outcomes[0] != outcomes[1]).sum())
    ratio = statistics.median(b / a for b, a in zip(*seconds, strict=True))
    slow, fast = map(statistics.median, seconds)
    print(
        f"{title:32} {slow:8.2f} s → {fast:7.2f} s {ratio:6.2f} x   {standing} of {total} stand, {differ} differ",
        flush=True,
    )


def package(network: nn.Module, eps: float, part: Split) -> Tensor:
    """The package called as its documentation says."""
    with evaluating(network):
        attacks = AutoAttack(Logits(network).eval(), eps=eps, seed=0, device="cpu", version="standard")
        trace = sys.gettrace()
        _, predictions = attacks.run_standard_evaluation(part.images.float() / 255, part.labels, batch_size=BATCH)
        sys.settrace(trace)
    outcomes: Tensor = predictions == part.labels
    return outcomes


def adapter(network: nn.Module, eps: float, part: Split) -> Tensor:
    """AutoAttack as the engine runs it."""
    with evaluating(network):
        images = part.images.float() / 255
        return autoattack(network, images, part.labels, eps=eps, seed=0, batch_size=BATCH, device=CPU).correct


def plain(network: nn.Module, pgd: PGD, split: Split) -> Tensor:
    """The attack on the network as it is, every image at every step."""
    pgd, outcomes = replace(pgd, fold=False), []
    with evaluating(network):
        for number, part in enumerate(torch.arange(len(split)).split(BATCH)):
            x, y = split.images[part].float() / 255, split.labels[part]
            made = pgd(network, x, y, generator(CPU, 0, "evaluate", "benchmark", number)).images
            with torch.no_grad():
                outcomes.append(network(made).logits.argmax(1) == y)
    return torch.cat(outcomes)


def ours(network: nn.Module, pgd: PGD, split: Split) -> Tensor:
    """The attack as the engine evaluates it."""
    return accuracy(network, split, torch.arange(len(split)), BATCH, CPU, pgd, 0, "benchmark").correct


def learn(network: nn.Module, train: Split, epochs: int, eps: float) -> nn.Module:
    """PGD-AT with a falling learning rate; on natural images where eps is 0."""
    x, y, draw = train.images.float() / 255, train.labels, torch.Generator().manual_seed(1)
    pgd = PGD(eps, eps / 2, 3 if eps else 0, start="uniform", fold=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        network.train()
        for part in torch.randperm(len(x), generator=draw).split(64):
            images = pgd(network, x[part], y[part], draw).images
            optimizer.zero_grad()
            cross_entropy(network(images).logits, y[part]).backward()
            optimizer.step()
        schedule.step()
    optimizer.zero_grad()
    return network


def enlarge(split: Split, factor: int) -> Split:
    """Images [n, 3, factor H, factor W] from [n, 1, H, W]; with 1 as they are."""
    if factor == 1:
        return split
    return Split(interpolate(split.images, scale_factor=factor).repeat(1, 3, 1, 1), split.labels)


def cut(split: Split, part: range) -> Split:
    """Consecutive examples of a split."""
    return Split(split.images[part.start : part.stop], split.labels[part.start : part.stop])


if __name__ == "__main__":
    main()
