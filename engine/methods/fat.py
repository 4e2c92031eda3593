"""FAT (Zhang et al., ICML 2020): friendly adversarial training, whose attack stops soon after it has succeeded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from engine.methods.at import At
from engine.methods.base import Method
from engine.methods.mart import Mart
from engine.methods.trades import Trades
from engine.options import option
from engine.step import Batch, Perturbed

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD, StopRule
    from engine.step import Position, Step


@dataclass(frozen=True)
class Fat(Method):
    """FAT (Zhang et al. 2020): AT, TRADES or MART on x' that stop tau + 1 looks after they first mislead M'."""

    base: str = option("at", choices=("at", "trades", "mart"), help="whose loss and attack it uses")
    beta: float = option(6.0, ge=0.0, help="weight of the KL term; base at has none")
    noise: float = option(
        0.001, ge=0.0, help="standard deviation of the noise in each step; 0 in the authors' TRADES and MART"
    )
    tolerance: int = option(0, ge=0, help="tau of the first epochs: misclassified iterates that still move on")
    tolerance_epoch: int = option(51, ge=1, help="epoch from which tau is one higher")
    tolerance_every: int = option(40, ge=1, help="epochs from one rise of tau to the next")
    tolerance_rises: int = option(2, ge=0, help="how often tau rises")

    @property
    def forwards(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant elsewhere, but here it depends on base
        """In the order of the authors' code, which for MART is not MART's own."""
        return {"at": ("adversarial",), "trades": ("natural", "adversarial"), "mart": ("adversarial", "natural")}[
            self.base
        ]

    def attack_form(self) -> tuple[str, str]:
        """What the base climbs, from a uniform start for AT and a gaussian one else."""
        return ("kl" if self.base == "trades" else "ce"), ("uniform" if self.base == "at" else "gaussian")

    def tau(self, position: Position) -> int:
        """The tolerance of this epoch."""
        rises = (position.epoch - self.tolerance_epoch) // self.tolerance_every + 1
        return self.tolerance + min(max(rises, 0), self.tolerance_rises)

    def perturb(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> Perturbed:
        """Early-stopped PGD (FAT alg. 1) from a clipped start; samples come back in the order in which they stopped."""
        stop = friendly(self.tau(position), batch.y)
        attack = replace(attack, stop=stop, noise=self.noise, clip_start=True)
        images, correct, taken = attack(network, batch.x, batch.y, generator)
        order = taken.argsort(stable=True)
        batch = Batch(batch.x[order], batch.y[order], batch.index[order])
        return Perturbed(batch, images[order], correct[order])

    def losses(self, step: Step) -> dict[str, Tensor]:
        """The base's losses on the friendly x'."""
        if self.base == "at":
            return At().losses(step)
        return (Trades(beta=self.beta) if self.base == "trades" else Mart(beta=self.beta)).losses(step)


def friendly(tolerance: int, y: Tensor) -> StopRule:
    """Stop rule: a sample stops for good when it is seen misclassified for the (tolerance + 1)-th time. y [B]."""
    left = torch.full_like(y, tolerance)

    def moves_on(logits: Tensor, y: Tensor, step: int) -> Tensor:
        left.sub_((logits.argmax(dim=1) != y).long())
        return left >= 0

    return moves_on
