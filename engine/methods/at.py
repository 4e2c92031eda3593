"""Adversarial training of Madry et al. (ICLR 2018), also called PGD-AT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from engine.losses import cross_entropy
from engine.methods.base import Method

if TYPE_CHECKING:
    from engine.step import Step


@dataclass(frozen=True)
class At(Method):
    """Adversarial training (Madry et al. 2018): CE(z'(x'), y), with x' climbing the same cross-entropy."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Cross-entropy on adversarial images."""
        return {"ce": cross_entropy(step.adversarial.logits, step.y)}
