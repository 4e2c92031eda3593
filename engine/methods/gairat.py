"""GAIRAT (Zhang et al., ICLR 2021): adversarial training with a weight for each sample by how hard it is to attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from engine.losses import cross_entropy_per_sample
from engine.methods.base import Method
from engine.options import option
from engine.step import Perturbed

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.step import Batch, Position, Step


@dataclass(frozen=True)
class Reweighted(Perturbed):
    """x' with the `weights` [B] of its samples in the loss, whose mean is 1."""

    weights: Tensor


@dataclass(frozen=True)
class Gairat(Method):
    """GAIRAT (Zhang et al. 2021): CE(z'(x'), y) weighted by the steps that x' needs to cross the boundary."""

    attack_start: ClassVar[str] = "uniform"

    weighting: str = option(
        "tanh", choices=("tanh", "sigmoid", "linear"), help="how a weight falls with the steps kappa; linear has no lam"
    )
    lam: float = option(-1.0, ge=-30.0, help="Lambda: the higher, the more alike the weights of tanh and sigmoid")
    lam_epoch: int = option(
        0, ge=0, help="Lambda is infinite, all weights 1, before this epoch; 0: 60 of 110 epochs or more, else 30"
    )
    begin_epoch: int = option(60, ge=1, help="plain adversarial training before this epoch")

    def perturb(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> Reweighted:
        """The attack's x', and the weight of each sample from the steps it took while still classified correctly."""
        images, kappa, _ = attack(network, batch.x, batch.y, generator)
        weights = torch.ones(kappa.shape, dtype=images.dtype, device=images.device)
        if self.reweights(position):
            assert isinstance(attack.steps, int)  # [attack] has one number of steps for all samples
            weights = self.weights(kappa.to(images), attack.steps)
            weights = weights * len(weights) / weights.sum()
        return Reweighted(batch, images, kappa, weights)

    def reweights(self, position: Position) -> bool:
        """Whether samples differ in weight at `position`."""
        lam_epoch = self.lam_epoch or (60 if position.epochs >= 110 else 30)
        begin = self.begin_epoch if self.weighting == "linear" else max(self.begin_epoch, lam_epoch)
        return position.epoch >= begin

    def weights(self, kappa: Tensor, steps: int) -> Tensor:
        """The weighting of GAIRAT for kappa [B] of K = `steps`, before normalisation: [B], in (0, 1].

        An odd K is halved downwards, as in the authors' code.
        """
        if self.weighting == "linear":
            return (steps + 1 - kappa) / (steps + 1)
        half = steps // 2 or 0.5
        score = self.lam + 5 * (half - kappa) / half
        # (1 + tanh u) / 2 is sigmoid(2u), and written so keeps its digits where it is small.
        return torch.sigmoid(score if self.weighting == "sigmoid" else 2 * score)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """GAIRAT's loss: the weighted mean of the cross-entropies on x'; no gradient flows through the weights."""
        assert isinstance(step.perturbed, Reweighted)
        each = cross_entropy_per_sample(step.adversarial.logits, step.y)
        return {"ce": (step.perturbed.weights * each).mean()}
