"""MART (Wang et al., ICLR 2020): misclassification-aware adversarial training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch.nn.functional as F
from torch import Tensor

from engine.losses import cross_entropy, wide
from engine.methods.base import Method
from engine.options import option

if TYPE_CHECKING:
    from engine.step import Step

# The authors' code keeps its logarithms finite with these; they are part of the loss it trains.
MARGIN_ROOM = 1.0001
WEIGHT_ROOM = 1.0000001
FLOOR = 1e-12


@dataclass(frozen=True)
class Mart(Method):
    """MART (Wang et al. 2020): boosted CE(z'(x'), y) + beta KL(natural || adversarial), weighted by 1 - pi_y(x)."""

    forwards: ClassVar[tuple[str, ...]] = ("natural", "adversarial")

    beta: float = option(6.0, ge=0.0, help="weight of the KL term")

    def losses(self, step: Step) -> dict[str, Tensor]:
        """MART's loss with the constants of the authors' code; gradient flows through every part."""
        natural, adversarial = step.natural.logits, step.adversarial.logits
        kl = self.beta * misclassification_aware_kl(natural, adversarial, step.y)
        return {"bce": boosted_cross_entropy(adversarial, step.y), "kl": kl}


def boosted_cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean of -ln p_y - ln(1.0001 - p_k + 1e-12), p = softmax(logits), k the most likely wrong class.

    logits [B, C], y [B] int64 -> scalar.
    """
    wrong = wide(logits).softmax(dim=1).scatter(1, y.unsqueeze(1), -1.0)
    return cross_entropy(logits, y) - (MARGIN_ROOM - wrong.max(dim=1).values + FLOOR).log().mean()


def misclassification_aware_kl(natural_logits: Tensor, other_logits: Tensor, y: Tensor) -> Tensor:
    """Mean of KL(p || q) (1.0000001 - p_y), p = softmax(natural_logits), q = softmax(other_logits) + 1e-12.

    [B, C] x 2, [B] int64 -> scalar. ln p comes from the logits: the logarithm of a probability that has underflown to
    0 would make the loss finite and its gradient NaN.
    """
    log_p = F.log_softmax(wide(natural_logits), dim=1)
    p = log_p.exp()
    log_q = (wide(other_logits).softmax(dim=1) + FLOOR).log()
    hard = WEIGHT_ROOM - p.gather(1, y.unsqueeze(1)).squeeze(1)
    return ((p * (log_p - log_q)).sum(dim=1) * hard).mean()
