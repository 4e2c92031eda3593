"""Adversarial weight perturbation (Wu et al., NeurIPS 2020): the loss is taken where the weights are worst nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from engine.methods.at import At, scored
from engine.methods.base import Method, Order
from engine.methods.trades import Trades
from engine.options import option

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.models.output import Output
    from engine.step import Position, Step

FLOOR = 1e-20  # keeps a layer with a gradient of 0 where it is


@dataclass(frozen=True)
class Awp(Method):
    """AWP (Wu et al. 2020): adversarial training or TRADES, its gradient taken at perturbed weights of M'."""

    attack_start: ClassVar[str] = "uniform"
    # base trades asks for x afterwards, and so has the order of the authors' code: x', then x.
    forwards: ClassVar[tuple[str, ...]] = ("adversarial",)

    base: str = option("at", choices=("at", "trades"), help="what it is combined with")
    gamma: float = option(0.01, ge=0.0, help="size of the perturbation of a layer, as a share of the layer's norm")
    warmup: int = option(0, ge=0, help="the first epoch, counted from 1, in which weights are perturbed; 0: all")
    beta: float = option(6.0, ge=0.0, help="weight of the KL term; base at has none")

    def attack_form(self) -> tuple[str, str]:
        """As in the authors' code: CE from a uniform start for AT-AWP, KL from a Gaussian one for TRADES-AWP."""
        if self.base == "trades":
            return Trades.attack_loss, Trades.attack_start
        return self.attack_loss, self.attack_start

    def official(self, attack: PGD) -> Order:
        """TRADES-AWP runs x', x and x again, all at w + v; AT-AWP is built on the code of Rice et al."""
        return Order(("adversarial", "natural", "natural")) if self.base == "trades" else scored(attack)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The losses of the base."""
        base = At() if self.base == "at" else Trades(beta=self.beta)
        return base.losses(step)

    @contextmanager
    def displaced(
        self, network: nn.Module, robust_loss: Callable[[nn.Module], Tensor], position: Position
    ) -> Iterator[None]:
        """M' at w + v. Afterwards v is taken off again, and what the update did in between stays.

        The update at w + v followed by w <- w - v is w + (what the update added). It is computed so, because adding v
        and subtracting it would round twice: where the update does nothing, every weight is what it was, bit for bit.
        """
        if position.epoch < self.warmup or self.gamma == 0:
            yield
            return
        weights = perturbed_weights(network)
        perturbation = weight_perturbation(weights, robust_loss(StandIn(network)), self.gamma)
        with torch.no_grad():
            before = [w.clone() for w in weights]
            moved = [w + v for w, v in zip(weights, perturbation, strict=True)]
            for w, start in zip(weights, moved, strict=True):
                w.copy_(start)
        try:
            yield
        finally:
            with torch.no_grad():
                for w, original, start in zip(weights, before, moved, strict=True):
                    w.sub_(start).add_(original)


class StandIn(nn.Module):
    """M' for the forwards that find v: its own parameters, but a copy of its buffers.

    So the running statistics of BatchNorm, which stays in train mode, see the forwards at w + v alone.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.copies = {name: buffer.clone() for name, buffer in network.named_buffers()}

    def forward(self, images: Tensor) -> Output:
        """The network's Output on images [B, C, H, W]."""
        output: Output = functional_call(self.network, self.copies, (images,))
        return output


def perturbed_weights(network: nn.Module) -> list[nn.Parameter]:
    """Weights of convolutions and linear layers; biases and BatchNorm are left alone."""
    return [p for name, p in network.named_parameters() if name.split(".")[-1] == "weight" and p.dim() > 1]


def weight_perturbation(weights: list[nn.Parameter], loss: Tensor, gamma: float) -> list[Tensor]:
    """v_l = gamma |w_l| g_l / |g_l| of each layer, g_l the gradient of the scalar `loss`; AWP's one ascent step.

    The authors' code takes g_l as the difference of the weights before and after a step. That is the same direction
    with more rounding.
    """
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        return [gamma * w.norm() / (g.norm() + FLOOR) * g for w, g in zip(weights, gradients, strict=True)]
