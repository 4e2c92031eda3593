"""Adversarial training of Madry et al. (ICLR 2018), also called PGD-AT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from engine.losses import cross_entropy
from engine.methods.base import Method, Order
from engine.options import option

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.step import Step


@dataclass(frozen=True)
class At(Method):
    """Adversarial training (Madry et al. 2018): CE(z'(x'), y), with x' climbing the same cross-entropy."""

    code: str = option(
        "at-he", choices=("at-he", "bag-of-tricks", "rice"), help="whose code forwards = official follows"
    )

    def official(self, attack: PGD) -> Order:
        """AT_HE, in TRADES' style, has x' alone. Bag-of-Tricks and Rice et al. also run x after the update, to log it,
        the former once before as well; the latter score x', which moves statistics where the attack itself does.
        """
        if self.code == "bag-of-tricks":
            return Order(("adversarial", "natural"), after=("natural",))
        if self.code == "rice":
            return scored(attack)
        return Order(self.forwards)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Cross-entropy on adversarial images."""
        return {"ce": cross_entropy(step.adversarial.logits, step.y)}


def scored(attack: PGD) -> Order:
    """The forwards of Rice et al., whose code AWP's authors took over: x' is scored once more after the attack, in the
    attack's mode, and x is looked at after the update.
    """
    before = ("adversarial",) if attack.batchnorm == "train" else ()
    return Order(("adversarial",), before=before, after=("natural",))
