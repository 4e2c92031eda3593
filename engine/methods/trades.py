"""TRADES (Zhang et al., ICML 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from engine.losses import cross_entropy, kl_divergence
from engine.methods.base import Method, Order
from engine.options import option

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.step import Step


@dataclass(frozen=True)
class Trades(Method):
    """TRADES (Zhang et al. 2019): CE(z'(x), y) + beta KL(natural || adversarial prediction)."""

    attack_loss: ClassVar[str] = "kl"
    forwards: ClassVar[tuple[str, ...]] = ("natural", "adversarial")

    beta: float = option(6.0, ge=0.0, help="weight of the KL term")

    def official(self, attack: PGD) -> Order:
        """The authors' code runs x a second time in train mode. That changes neither the loss nor its gradient."""
        return Order(("natural", "adversarial", "natural"))

    def losses(self, step: Step) -> dict[str, Tensor]:
        """TRADES eq. 5, with gradient through both arguments of the KL."""
        natural, adversarial = step.natural.logits, step.adversarial.logits
        return {"ce": cross_entropy(natural, step.y), "kl": self.beta * kl_divergence(natural, adversarial)}
