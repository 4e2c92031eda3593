"""Accuracy of one network on one split, natural or under the projected-gradient attack, example by example."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine import randomness
from engine.attacks.pgd import PGD, misclassified
from engine.attacks.sparing import renewed
from engine.data.base import Split
from engine.models.fold import folded
from engine.models.output import Output
from engine.precision import without_tf32

Poll = Callable[[], None]
"""Called between batches; what it raises ends the evaluation (a stop that somebody asked for)."""


def never() -> None:
    """The poll of an evaluation that nothing interrupts."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluated batch: y [B]; images [B, C, H, W] float32 in [0, 1] as the network saw them; its output on them."""

    y: Tensor
    images: Tensor
    output: Output


@dataclass(frozen=True)
class Outcomes:
    """Per-example outcomes on the CPU, in the order of `indices` (positions in the split), each [n].

    `images` [n, C, H, W], float32 in [0, 1], is what the network saw, kept if that was asked for.
    """

    indices: Tensor
    labels: Tensor
    predictions: Tensor
    images: Tensor | None = None

    @property
    def correct(self) -> Tensor:
        """[n] bool."""
        return self.predictions == self.labels

    @property
    def percent(self) -> float:
        """Accuracy in percent."""
        return 100.0 * int(self.correct.sum()) / len(self.labels)


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Eval mode and full float32 (no TF32) inside; every module's own mode and the settings are restored after.

    cuDNN looks for no fastest kernel: attacks ask about however many images stand, and it would look for each number.
    """
    modes = [(module, module.training) for network in networks for module in network.modules()]
    looks = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = False
        for network in networks:
            network.eval()
        with without_tf32():
            yield
    finally:
        torch.backends.cudnn.benchmark = looks
        for module, training in modes:
            module.training = training


def images_of(split: Split, indices: Tensor, device: torch.device) -> Tensor:
    """Images [n, C, H, W] of a split on `device`, float32 in [0, 1]."""
    return split.images[indices.to(split.images.device)].to(device).float() / 255


class Unsettled(nn.Module):
    """The network as an attack asks it that leaves misclassified images as they are: only about those that moved.

    An image that stays as it is keeps its logits, and so stays misclassified. `forward` takes the iterates [B, ...] of
    one batch, step by step, and returns an Output without features.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.images: Tensor | None = None
        self.logits: Tensor | None = None

    def forward(self, x: Tensor) -> Output:
        """Logits [B, C]; their gradient with respect to an image that did not move is 0."""
        moved = None if self.images is None else (x != self.images).flatten(1).any(dim=1)
        logits = renewed(lambda some: self.network(some).logits, x, self.logits, moved)
        self.images, self.logits = x.detach(), logits.detach()
        return Output(x.new_empty(len(x), 0), logits)


def _asked(network: nn.Module, attack: PGD) -> tuple[nn.Module, PGD]:
    """What `attack` asks in place of `network`, and how. All batches share a twin, since Unsettled, which is new for
    each of them, asks it and gets none of its own.
    """
    if attack.stop is not misclassified:
        return network, attack
    return Unsettled(folded(network) if attack.fold else network), replace(attack, fold=False)


def batches(
    network: nn.Module,
    split: Split,
    indices: Tensor,
    batch_size: int,
    device: torch.device,
    attack: PGD | None,
    seed: int,
    metric: str,
    poll: Poll = never,
) -> Iterator[Evaluated]:
    """Evaluate `indices` of `split` batch by batch; the last, incomplete batch is kept.

    The random start of an attack is drawn per batch as a pure function of (seed, metric, number of the batch): so a
    number depends on seed, batch size and order, which are stored with it, and on nothing evaluated before.

    Who is misclassified on the natural image is attacked like everybody: the protocols count the last iterate, which
    may be classified correctly whatever came before. Only where they leave misclassified iterates as they are is an
    example's outcome known before the last step, and then it costs nothing more.
    """
    for number, part in enumerate(torch.split(indices, batch_size)):
        poll()
        x = images_of(split, part, device)
        y = split.labels[part.to(split.labels.device)].to(device)
        with evaluating(network), torch.autocast(device.type, enabled=False):
            if attack is not None:
                attacked, make = _asked(network, attack)
                x = make(attacked, x, y, randomness.generator(device, seed, "evaluate", metric, number)).images
            with torch.no_grad():
                output = network(x)
        yield Evaluated(y, x, output)


def accuracy(
    network: nn.Module,
    split: Split,
    indices: Tensor,
    batch_size: int,
    device: torch.device,
    attack: PGD | None,
    seed: int,
    metric: str,
    *,
    keep_images: bool = False,
    poll: Poll = never,
) -> Outcomes:
    """Predictions of `network` (float32, eval mode) on the examples `indices` [n] of `split`.

    `attack` None means natural images; `metric` names the purpose of the random start. Raises ValueError for no
    examples.
    """
    if len(indices) == 0:
        raise ValueError(f"{metric}: there is no example to evaluate")
    labels: list[Tensor] = []
    predictions: list[Tensor] = []
    images: list[Tensor] = []
    for batch in batches(network, split, indices, batch_size, device, attack, seed, metric, poll):
        labels.append(batch.y.cpu())
        predictions.append(batch.output.logits.argmax(1).cpu())
        if keep_images:
            images.append(batch.images.cpu())
    kept = torch.cat(images) if keep_images else None
    return Outcomes(indices.cpu(), torch.cat(labels), torch.cat(predictions), kept)
