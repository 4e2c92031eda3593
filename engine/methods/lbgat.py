"""LBGAT (Cui et al., ICCV 2021): a naturally trained network guides the logits of the robust one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from engine.losses import kl_divergence, mse
from engine.methods.at import At
from engine.methods.base import Method
from engine.methods.trades import Trades
from engine.options import option

if TYPE_CHECKING:
    from engine.step import Step


@dataclass(frozen=True)
class Lbgat(Method):
    """LBGAT (Cui et al. 2021): gamma MSE(z'(x'), z(x)) on adversarial training or TRADES."""

    attack_loss: ClassVar[str] = "kl"
    # The natural forward is made even where no loss uses it: the authors' code does so, which moves the
    # BatchNorm statistics of M'.
    forwards: ClassVar[tuple[str, ...]] = ("adversarial", "natural", "standard")
    needs_standard: ClassVar[bool] = True

    base: str = option("trades", choices=("at", "trades"), help="what it is combined with")
    form: str = option(
        "official", choices=("official", "paper"), help="the authors' code (no CE on M'), or TRAIN eq. 15/16"
    )
    beta: float = option(6.0, ge=0.0, help="weight of the KL term; base at has none")
    gamma: float = option(1.0, ge=0.0, help="weight of the MSE between the logits of M' and M")

    def attack_form(self) -> tuple[str, str]:
        """KL, as the authors' code climbs for both bases; the paper form climbs what its base climbs."""
        if self.form == "paper" and self.base == "at":
            return At.attack_loss, At.attack_start
        return self.attack_loss, self.attack_start

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The base's terms and the MSE, which sends gradient into both networks.

        M's own cross-entropy is not here: the engine adds it for every M that is trained.
        """
        parts: dict[str, Tensor] = {}
        if self.form == "paper":
            base = At() if self.base == "at" else Trades(beta=self.beta)
            parts = base.losses(step)
        elif self.base == "trades":
            parts["kl"] = self.beta * kl_divergence(step.natural.logits, step.adversarial.logits)
        parts["mse"] = self.gamma * mse(step.adversarial.logits, step.standard.logits)
        return parts
