"""SAT (Sitawarin, Chakraborty & Wagner, AISec 2021; first called ATES): a gate on how hard x' may become."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from engine.losses import cross_entropy, margin, wide
from engine.methods.base import Method
from engine.options import option
from engine.step import Perturbed

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.step import Batch, Position, Step


@dataclass(frozen=True)
class Sat(Method):
    """P-SAT (Sitawarin et al. 2021): CE(z'(x'), y), where x' moves on only while its difficulty is below a gate."""

    attack_start: ClassVar[str] = "uniform"

    gate: float = option(0.0, ge=-1.0, le=1.0, help="difficulty of the first epochs: max of the wrong pi' - pi'_y")
    gate_end: float = option(0.4, ge=-1.0, le=1.0, help="difficulty after the last rise")
    gate_epoch: int = option(31, ge=1, help="epoch of the first rise")
    gate_every: int = option(1, ge=1, help="epochs from one rise to the next; 1 with many rises is the linear schedule")
    gate_rises: int = option(40, ge=1, help="number of rises, all alike")

    def limit(self, position: Position) -> float:
        """The gate g of this epoch."""
        rises = (position.epoch - self.gate_epoch) // self.gate_every + 1
        share = min(max(rises, 0), self.gate_rises) / self.gate_rises
        return self.gate + (self.gate_end - self.gate) * share

    def perturb(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> Perturbed:
        """The attack, with each sample moved only while its difficulty is at most the gate."""
        limit = self.limit(position)

        def easy(logits: Tensor, y: Tensor, step: int) -> Tensor:
            return difficulty(logits, y) <= limit

        images, correct, _ = replace(attack, stop=easy)(network, batch.x, batch.y, generator)
        return Perturbed(batch, images, correct)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Cross-entropy on the gated x'."""
        return {"ce": cross_entropy(step.adversarial.logits, step.y)}


def difficulty(logits: Tensor, y: Tensor) -> Tensor:
    """Softmax probability gap max_{k != y} p_k - p_y of each sample, in [-1, 1]. [B, C], [B] int64 -> [B]."""
    return margin(wide(logits).softmax(dim=1), y)
