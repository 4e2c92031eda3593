"""Adversarial logit pairing (Kannan et al., 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from engine.losses import cross_entropy, mse
from engine.methods.base import Method
from engine.options import option

if TYPE_CHECKING:
    from engine.step import Step


@dataclass(frozen=True)
class Alp(Method):
    """ALP (Kannan et al. 2018): cross-entropy, and the distance between the logits of x and of x'."""

    # Also where no cross-entropy uses x: the pairing does.
    forwards: ClassVar[tuple[str, ...]] = ("natural", "adversarial")

    form: str = option(
        "mixed",
        choices=("mixed", "adversarial"),
        help="cross-entropy on x and x', half each (Pang et al. 2020), or on x' alone (LBGAT's manuscript)",
    )
    weight: float = option(1.0, ge=0.0, help="weight of the mean squared error between the logits of x and x'")

    def losses(self, step: Step) -> dict[str, Tensor]:
        """1/2 CE(z'(x), y) + 1/2 CE(z'(x'), y) + weight MSE(z'(x), z'(x')), with gradient through both logits."""
        natural, adversarial = step.natural.logits, step.adversarial.logits
        ce = cross_entropy(adversarial, step.y)
        if self.form == "mixed":
            ce = (cross_entropy(natural, step.y) + ce) / 2
        return {"ce": ce, "mse": self.weight * mse(natural, adversarial)}
