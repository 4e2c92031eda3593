"""LBGAT (Cui et al., ICCV 2021): a naturally trained network guides the logits of the robust one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from engine.losses import kl_divergence, mse
from engine.methods.alp import Alp
from engine.methods.at import At
from engine.methods.base import Method
from engine.methods.trades import Trades
from engine.options import option

if TYPE_CHECKING:
    from engine.step import Step


@dataclass(frozen=True)
class Lbgat(Method):
    """LBGAT (Cui et al. 2021): gamma MSE(z'(x'), z(x)) on adversarial training, ALP or TRADES."""

    attack_loss: ClassVar[str] = "kl"
    # The natural forward is made even where no loss uses it: the authors' code does so, which moves the
    # BatchNorm statistics of M'.
    forwards: ClassVar[tuple[str, ...]] = ("adversarial", "natural", "standard")
    needs_standard: ClassVar[bool] = True

    base: str = option("trades", choices=("at", "alp", "trades"), help="what it is combined with")
    form: str = option(
        "official", choices=("official", "paper"), help="the authors' own (no CE on M'), or as TRAIN eq. 15/16"
    )
    beta: float = option(6.0, ge=0.0, help="weight of the KL term; base trades only")
    alpha: float = option(1.0, ge=0.0, help="weight of the MSE between M' logits of x and of x'; base alp only")
    gamma: float = option(1.0, ge=0.0, help="weight of the MSE between the logits of M' and M")

    def attack_form(self) -> tuple[str, str]:
        """KL, as the authors' code climbs for AT and TRADES; the paper form climbs what its base climbs.

        With ALP so does the official form: the authors' manuscript does not say, and their code has no ALP.
        """
        if self.form == "paper" or self.base == "alp":
            return self._base().attack_form()
        return self.attack_loss, self.attack_start

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The base's terms and the MSE, which sends gradient into both networks.

        On ALP the official form is eq. 4 of the authors' manuscript of 2020. Its other MSE, between the logits of M',
        is called the pairing here, so that both have a name.

        M's own cross-entropy is not here: the engine adds it for every M that is trained.
        """
        parts: dict[str, Tensor] = {}
        if self.form == "paper":
            parts = self._base().losses(step)
            if self.base == "alp":
                parts["pairing"] = parts.pop("mse")
        elif self.base == "alp":
            parts["pairing"] = self.alpha * mse(step.adversarial.logits, step.natural.logits)
        elif self.base == "trades":
            parts["kl"] = self.beta * kl_divergence(step.natural.logits, step.adversarial.logits)
        parts["mse"] = self.gamma * mse(step.adversarial.logits, step.standard.logits)
        return parts

    def _base(self) -> Method:
        """The method that it is combined with."""
        if self.base == "at":
            return At()
        return Alp(form="mixed", weight=self.alpha) if self.base == "alp" else Trades(beta=self.beta)
