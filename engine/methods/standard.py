"""Standard training on natural images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from engine.losses import cross_entropy
from engine.methods.base import Method

if TYPE_CHECKING:
    from engine.step import Step


@dataclass(frozen=True)
class Standard(Method):
    """Standard training: CE(z(x), y), no attack."""

    adversarial: ClassVar[bool] = False
    forwards: ClassVar[tuple[str, ...]] = ("natural",)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Cross-entropy on natural images."""
        return {"ce": cross_entropy(step.natural.logits, step.y)}
