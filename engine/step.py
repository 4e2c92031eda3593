"""One training step's forwards: each is made at most once and shared by the method and all terms.

That sharing is why +TRAIN costs almost nothing beside its base: L_TP uses features that the robust loss has
already computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from engine.models.output import Output

Forward = Callable[[nn.Module, Tensor, str], Output]
MIN_BATCH = 3  # BatchNorm needs two images and L_TP three


def split(count: int, at_most: int) -> list[slice]:
    """Parts of `count` images, alike in size, with `at_most` images each (0: all in one), but never fewer than 3."""
    number = max(1, min(-(-count // at_most), count // MIN_BATCH)) if at_most else 1
    return [slice(count * part // number, count * (part + 1) // number) for part in range(number)]


@dataclass(frozen=True)
class PerImage:
    """Base of what has one entry an image in each of its fields; a slice has those of some of the images."""

    def __getitem__(self, part: slice) -> Self:
        return replace(self, **{field.name: getattr(self, field.name)[part] for field in fields(self)})


@dataclass(frozen=True)
class Batch(PerImage):
    """x [B, C, H, W] float32 in [0, 1]; y [B] int64; index [B] int64, positions in the training split."""

    x: Tensor
    y: Tensor
    index: Tensor


@dataclass(frozen=True)
class Position:
    """Where training stands: `epoch` of `epochs`, and `batch` of `batches` in it, all but `batch` counted from 1."""

    epoch: int
    epochs: int
    batch: int
    batches: int


@dataclass(frozen=True)
class Perturbed(PerImage):
    """What the training attack made: `images` x' [B, C, H, W] for `batch`, whose order the method may have changed.

    `steps_correct` [B] int64 counts the steps taken from an iterate that was still classified correctly.
    """

    batch: Batch
    images: Tensor
    steps_correct: Tensor


class Step:
    """The forwards of one step. In train mode the order of M' forwards moves its BatchNorm statistics, so the
    engine asks for them in the order in which the method lists them (`Method.forwards`).
    """

    def __init__(
        self,
        adversarial: nn.Module,
        standard: nn.Module | None,
        batch: Batch,
        perturbed: Perturbed | None,
        forward: Forward,
        position: Position,
        part: int = 0,
    ) -> None:
        """`perturbed` is None for a method without an attack; `forward(network, images, purpose)` runs a network (the
        engine puts precision and dropout seeding there). Where the step's images are taken in parts, this is `part`.
        """
        self.batch = perturbed.batch if perturbed is not None else batch
        self.x, self.y = self.batch.x, self.batch.y
        self.perturbed, self.position = perturbed, position
        self._adversarial, self._standard, self._forward, self._part = adversarial, standard, forward, part

    @cached_property
    def natural(self) -> Output:
        """M' on x."""
        return self._run("natural")

    @cached_property
    def adversarial(self) -> Output:
        """M' on x'."""
        return self._run("adversarial")

    @cached_property
    def standard(self) -> Output:
        """M on x."""
        return self._run("standard")

    def make(self, names: Iterable[str]) -> None:
        """Make the forwards `names` in this order, each to be read above; one made before is made `again`."""
        for name in names:
            if name in vars(self):
                self.again([name])
            else:
                getattr(self, name)

    def again(self, names: Iterable[str]) -> None:
        """Make the forwards `names` only for what they do to BatchNorm's running statistics."""
        with torch.no_grad():
            for name in names:
                self._run(name, " again")

    def _run(self, name: str, why: str = "") -> Output:
        network, images = self._adversarial, self.x
        if name == "adversarial":
            if self.perturbed is None:
                raise RuntimeError("this method makes no adversarial images, but a loss asks for them")
            images = self.perturbed.images
        elif name == "standard":
            if self._standard is None:
                raise RuntimeError("this run has no standard network, but a loss asks for it")
            network = self._standard
        # Each part has a purpose of its own, and so dropout of its own.
        return self._forward(network, images, f"{name}{why} {self._part}" if self._part else name + why)
