"""ECAS (Kuurila-Zhang, Chen & Zhao, BMVC 2023): a radius that cycles over the epochs, overruled by entropy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.attacks.pgd import Mode, batchnorm_mode
from engine.losses import smoothed_cross_entropy, wide
from engine.methods.at import At
from engine.methods.awp import Awp
from engine.methods.base import Method, Order
from engine.methods.trades import Trades
from engine.options import option
from engine.step import Perturbed

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.step import Batch, Position, Step

UNITS = 8  # radii are counted in eighths of attack.eps, which are 255ths where attack.eps is 8/255


@dataclass(frozen=True)
class Ecas(Method):
    """ECAS (Kuurila-Zhang et al. 2023): AT, TRADES or AWP on x' whose radius depends on epoch and entropy."""

    base: str = option("at", choices=("at", "trades", "awp"), help="what it is combined with")
    lowest: int = option(3, ge=1, help="smallest radius of the cycle, in eighths of attack.eps")
    radii: int = option(10, ge=1, help="number of radii in the cycle, each an eighth larger than the one before")
    strong: int = option(3, ge=1, help="how many of the largest radii are drawn from for images of low entropy")
    entropy_high: float = option(2.274, ge=0.0, help="above it a prediction's entropy asks for the smallest radius")
    entropy_low: float = option(1.3, ge=0.0, help="below it a prediction's entropy asks for a strong radius")
    entropy_mode: str = option(
        "eval", choices=("eval", "train"), help="BatchNorm of M' where the entropy is taken; train as its authors do"
    )
    label: float = option(0.7, ge=0.0, le=1.0, help="target of the true class in the cross-entropy; base at only")
    beta: float = option(6.0, ge=0.0, help="weight of the KL term; base trades only")
    gamma: float = option(0.01, ge=0.0, help="size of AWP's perturbation of a layer; base awp only")

    @property
    def forwards(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant elsewhere, but here it depends on base
        """Those of the base."""
        return ("natural", "adversarial") if self.base == "trades" else ("adversarial",)

    def attack_form(self) -> tuple[str, str]:
        """CE from a uniform start for every base, as in the authors' code for CIFAR-10."""
        return "ce", "uniform"

    def official(self, attack: PGD) -> Order:
        """The entropy's forward moves the statistics too, and the AWP form looks at x after the update."""
        entropy_moves = ("natural",) if self.entropy_mode == "eval" else ()  # in train mode it does so by itself
        return Order(self.forwards, before_attack=entropy_moves, after=("natural",) if self.base == "awp" else ())

    def perturb(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> Perturbed:
        """PGD with a radius for each sample; its step keeps the proportion that [attack] has, to the epoch's radius.

        The AWP form starts within attack.eps whatever the radius, and is clipped back to it.
        """
        with batchnorm_mode(network, cast(Mode, self.entropy_mode)):
            uncertain = entropy(attack.logits(network, batch.x))
        own, radius = self.chosen(uncertain, position, generator)
        awp = self.base == "awp"
        sized = replace(
            attack,
            eps=radius.to(batch.x) / UNITS * attack.eps,
            step_size=own.to(batch.x).expand(len(radius)) / UNITS * attack.step_size,
            start_eps=attack.eps if awp else None,
        )
        images, correct, _ = sized(network, batch.x, batch.y, generator)
        if awp:
            images = images.clamp(batch.x - attack.eps, batch.x + attack.eps)
        return Perturbed(batch, images, correct)

    def chosen(self, uncertain: Tensor, position: Position, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The epoch's radius [] and each sample's [B] by its entropy `uncertain` [B], in eighths of attack.eps.

        One strong radius is drawn for the whole batch, whether a sample asks for it or not.
        """
        cycle = self.lowest + torch.arange(self.radii, device=uncertain.device)
        own = cycle[(position.epoch - 1) % self.radii]
        strong = cycle[-self.strong :]
        # Each radius is one more than the one before; to look one up, the host would wait for a GPU.
        drawn = strong[0] + torch.randint(len(strong), (), generator=generator, device=uncertain.device)
        radius = torch.where(uncertain < self.entropy_low, drawn, own)
        return own, torch.where(uncertain > self.entropy_high, cycle[0], radius)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Smoothed CE on x' for AT, TRADES' loss, or plain CE on x', taken at moved weights, for AWP."""
        if self.base == "trades":
            return Trades(beta=self.beta).losses(step)
        if self.base == "awp":
            return At().losses(step)
        return {"ce": smoothed_cross_entropy(step.adversarial.logits, step.y, self.label)}

    def displaced(
        self, network: nn.Module, robust_loss: Callable[[nn.Module], Tensor], position: Position
    ) -> AbstractContextManager[None]:
        """AWP's moved weights for base awp, M' as it is for the others."""
        if self.base != "awp":
            return nullcontext()
        return Awp(base="at", gamma=self.gamma).displaced(network, robust_loss, position)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of softmax(logits) of each sample, in nats. [B, C] -> [B]; a probability of 0 adds 0."""
    log_p = F.log_softmax(wide(logits), dim=1)
    return -(log_p.exp() * log_p).sum(dim=1)
