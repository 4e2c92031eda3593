"""The one projected-gradient attack (Madry et al. 2018) of all training methods and evaluations.

x' climbs a loss by steps of fixed length along the sign of the gradient and is projected back, after each
step, onto the l-infinity ball around x and onto the pixel range [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from engine.attacks import graphs
from engine.losses import cross_entropy_per_sample, kl_divergence_per_sample, margin, wide
from engine.models.fold import folded
from engine.precision import exactly, rounds
from engine.step import split

Loss = Literal["ce", "kl", "margin"]
Start = Literal["gaussian", "uniform", "none"]
Mode = Literal["eval", "train"]
StopRule = Callable[[Tensor, Tensor, int], Tensor]
"""(logits [B, C] of the current iterates, y [B], number of the step from 0) -> bool [B]: which samples move on."""

GAUSSIAN_SCALE = 0.001  # standard deviation of the gaussian start, as in TRADES


class Attacked(NamedTuple):
    """What an attack returns: images [B, ...] in [0, 1] without gradient, and two int64 counts [B]."""

    images: Tensor
    steps_correct: Tensor
    """Steps taken from an iterate that was still classified correctly (kappa of GAIRAT)."""
    steps_taken: Tensor


def misclassified(logits: Tensor, y: Tensor, step: int) -> Tensor:
    """Stop rule: a sample that is misclassified stays as it is."""
    return logits.argmax(dim=1) == y


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent. `eps`, `step_size` and `steps` are numbers, or tensors [B] with one per sample."""

    eps: float | Tensor
    step_size: float | Tensor
    steps: int | Tensor
    loss: Loss = "ce"
    """ce; kl: KL(softmax z(x) || softmax z(x')) as in TRADES; margin: max_{k != y} z_k - z_y."""
    start: Start = "gaussian"
    """gaussian: x + 0.001 N(0, 1); uniform: x + U(-start_eps, start_eps); none: x."""
    clip_start: bool = False
    """Clip the start to [0, 1] before the first gradient (the result is always clipped)."""
    start_eps: float | Tensor | None = None
    """Radius of the uniform start; None: eps."""
    batchnorm: Mode = "eval"
    """train: BatchNorm uses the attacked batch, and each forward moves its running statistics."""
    stop: StopRule | None = None
    """Looked at before each step, and asked anew each time; None: every sample takes all its steps."""
    noise: float = 0.0
    """Standard deviation of gaussian noise added to each step, inside the projection (FAT's omega)."""
    micro_batch: int = 0
    """Images a forward; 0: all. Random numbers and the stop rule are those of all images at once."""
    fold: bool = False
    """Fold BatchNorm into the convolutions for the time of the attack, in mode eval; equal but for rounding."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("loss", self.loss, get_args(Loss)),
            ("start", self.start, get_args(Start)),
            ("batchnorm", self.batchnorm, get_args(Mode)),
        ):
            if value not in known:
                raise ValueError(f"PGD: {name} is {value!r}, expected one of {', '.join(known)}")

    def __call__(self, network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Attacked:
        """Attack `network` (which returns Output) on x [B, ...] in [0, 1] with labels y [B] int64.

        Random numbers come from `generator` alone, which must be on x's device. The network is left as it was:
        its modes, parameters, their gradients and, with batchnorm="eval", its statistics. Images of half precision
        become float32.
        """
        x = wide(x.detach())
        with torch.enable_grad(), batchnorm_mode(network, self.batchnorm):
            return self._climb(network, x, y, generator)

    def _climb(self, network: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Attacked:
        eps, step_size = _over(self.eps, x), _over(self.step_size, x)
        low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
        near = self._starts_near(x)
        care = partial(exactly, x.device.type) if near else nullcontext
        form = self._form(network)
        find = find_first = self._finder(form, x)
        with care():
            if near:
                form = self._form(network)
                find_first = partial(self._gradient, form)
            target = self.logits(form, x) if self.loss == "kl" else None  # the same at every step
        images = self._starting_point(x, generator)
        correct = torch.zeros_like(y)
        taken = torch.zeros_like(y)
        limit = torch.zeros_like(y) + self.steps
        # Per-sample steps are read on the host here, so that the loop need not wait for the device.
        longest = int(self.steps.max()) if isinstance(self.steps, Tensor) else self.steps
        everyone = self.stop is None and not isinstance(self.steps, Tensor)
        for step in range(longest):
            with nullcontext() if step else care():
                logits, gradient = (find if step else find_first)(images, y, target)
            moving = limit > step
            if self.stop is not None:
                moving = moving & self.stop(logits, y, step)
                if not bool(moving.any()):
                    break
            moved = gradient.sign().mul_(step_size).add_(images)
            if self.noise:
                moved += self.noise * _normal(x, generator)
            moved.clamp_(low, high)
            images = moved if everyone else torch.where(_column(moving, x), moved, images)
            correct += moving & (logits.argmax(dim=1) == y)
            taken += moving
        return Attacked(images.clamp(0, 1), correct, taken)

    def _form(self, network: nn.Module) -> nn.Module:
        """What is asked in place of `network`, in the precision of this moment."""
        return folded(network) if self._folds else network

    @property
    def _folds(self) -> bool:
        return self.fold and self.batchnorm == "eval"

    def _starts_near(self, x: Tensor) -> bool:
        """Whether bfloat16, or TF32, would round the first iterate's prediction by more than it differs from that of x:
        KL would climb noise then, and end per cents away (benchmarks/quality.py). So the first gradient is in float32.
        """
        return self.loss == "kl" and self.start != "uniform" and rounds(x.device.type)

    def _finder(self, form: nn.Module, x: Tensor) -> graphs.Gradient:
        """The gradient, as a CUDA graph on a twin where the host has nothing to say between its steps."""
        gradient = partial(self._gradient, form)
        if not self._folds or self.stop is not None or self.micro_batch or not graphs.possible(form, x):
            return gradient
        return partial(graphs.recorded(form, self.loss), gradient)

    def _starting_point(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "gaussian":
            start = x + GAUSSIAN_SCALE * _normal(x, generator)
        elif self.start == "uniform":
            radius = _over(self.eps if self.start_eps is None else self.start_eps, x)
            start = x + radius * (2 * torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype) - 1)
        else:
            start = x.clone()
        return start.clamp(0, 1) if self.clip_start else start

    @torch.no_grad()
    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        """Logits [B, C] of `network` as it is on x [B, ...], without gradient, `micro_batch` images at a time."""
        return torch.cat([network(x[part]).logits for part in split(len(x), self.micro_batch)])

    def _gradient(self, network: nn.Module, images: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits [B, C] of the iterates and the gradient of the loss with respect to them, like images."""
        logits: list[Tensor] = []
        gradients: list[Tensor] = []
        for part in split(len(y), self.micro_batch):
            some = images[part].requires_grad_()
            found = network(some).logits
            loss = self._loss(found, y[part], None if target is None else target[part])
            gradients += torch.autograd.grad(loss.sum(), some)
            logits.append(found.detach())
        return _whole(logits), _whole(gradients)

    def _loss(self, logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
        """The loss of each sample [B]; its sum has the same gradient for a sample as in a batch of one."""
        if target is not None:
            return kl_divergence_per_sample(target, logits)
        return margin(logits, y) if self.loss == "margin" else cross_entropy_per_sample(logits, y)


@contextmanager
def batchnorm_mode(network: nn.Module, batchnorm: Mode) -> Iterator[None]:
    """Eval mode, with BatchNorm alone in train mode if asked; every module's own mode comes back afterwards."""
    before = [(module, module.training) for module in network.modules()]
    network.eval()
    if batchnorm == "train":
        for module, _ in before:
            if isinstance(module, _BatchNorm):
                module.train()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def _whole(parts: list[Tensor]) -> Tensor:
    """One tensor of all parts; torch.cat would copy a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _column(values: Tensor, x: Tensor) -> Tensor:
    """`values` [B] shaped to broadcast over x [B, ...]."""
    return values.reshape(-1, *[1] * (x.dim() - 1))


def _over(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A number as it is, one per sample [B] in x's type and shaped to broadcast over x."""
    return _column(value.to(x), x) if isinstance(value, Tensor) else value


def _normal(x: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
