"""Relational knowledge distillation (RKD, Park et al., CVPR 2019): M' keeps the distances between M's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from engine.losses import wide
from engine.options import option
from engine.regularizers.base import Term

if TYPE_CHECKING:
    from engine.step import Step

FLOOR = 1e-6  # shortest distance of two samples; the arm of an angle that is no longer has no direction
VERTICES = 16  # angles are compared at so many samples at a time


@dataclass(frozen=True)
class Rkd(Term):
    """RKD (Park et al. 2019): absolute relations of M's features, without TRAIN's neighbourhoods."""

    needs_standard: ClassVar[bool] = True
    inferred: ClassVar[str] = (
        "the TRAIN paper gives no formula and no weight of RKD: cosine distances and 25, unless set otherwise"
    )

    weight: float = option(25.0, ge=0.0, help="weight of the loss")
    form: str = option(
        "cosine",
        choices=("cosine", "original"),
        help="cosine distances, as the TRAIN paper describes it, or its authors' distances and angles",
    )
    distance: float = option(1.0, ge=0.0, help="form original: weight of the distances in the loss")
    angle: float = option(2.0, ge=0.0, help="form original: weight of the angles in the loss")
    source: str = option("adversarial", choices=("adversarial", "natural"), help="images that M' features come from")

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]  # a constant elsewhere, but here it depends on source
        """M on x, and M' on what `source` says."""
        return ("standard", self.source)

    def loss(self, step: Step) -> Tensor:
        """RKD of one step, in float32 or wider also under autocast; 0 for a single sample, which has no relations."""
        teacher = wide(step.standard.features.detach())
        student = wide(getattr(step, self.source).features)
        if len(student) < 2:
            return student.new_zeros(())
        with torch.autocast(student.device.type, enabled=False):
            if self.form == "cosine":
                return cosine_loss(teacher, student)
            return self.distance * distance_loss(teacher, student) + self.angle * angle_loss(teacher, student)


def cosine_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over i != j of smoothL1(d'_ij - d_ij), d the cosine distances. [N, D] and [N, D2], N >= 2 -> scalar.

    The absolute relations that the TRAIN paper compares with, its eq. 5 and 6.
    """
    h, h_prime = F.normalize(teacher, dim=1), F.normalize(student, dim=1)
    change = (h @ h.T - h_prime @ h_prime.T).masked_fill(_itself(h), 0)
    count = len(student)
    return _smooth_l1(change) / (count * (count - 1))


def distance_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """RKD-D: mean over i, j of smoothL1 between distances as shares of their mean. [N, D] and [N, D2] -> scalar."""
    return _smooth_l1(_distances(student) - _distances(teacher)) / len(student) ** 2


def angle_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """RKD-A: mean over i, j, k of smoothL1 between the cosines of the angles at i. [N, D] and [N, D2] -> scalar.

    Made for a few vertices at a time and again for the gradient, since N x N differences of D features need not fit.
    """
    total = student.new_zeros(())
    for vertices in torch.split(torch.arange(len(student), device=student.device), VERTICES):
        part = checkpoint(_angle_change, teacher, student, vertices, use_reentrant=False, preserve_rng_state=False)
        total = total + part
    return total / len(student) ** 3


def _angle_change(teacher: Tensor, student: Tensor, vertices: Tensor) -> Tensor:
    return _smooth_l1(_angles(student, vertices) - _angles(teacher, vertices))


def _angles(features: Tensor, vertices: Tensor) -> Tensor:
    """Cosines [V, N, N] of the angles at `vertices` [V] between every two samples; 0 where an arm has no length."""
    arms = features - features[vertices].unsqueeze(1)
    length = arms.norm(dim=2, keepdim=True)
    unit = torch.where(length > FLOOR, arms / length.clamp_min(FLOOR), 0)
    return unit @ unit.mT


def _distances(features: Tensor) -> Tensor:
    """Euclidean distances [N, N] divided by their mean over i != j; zero diagonal."""
    squares = features.square().sum(dim=1)
    squared = squares + squares.unsqueeze(1) - 2 * features @ features.T
    distances = squared.clamp_min(FLOOR**2).sqrt().masked_fill(_itself(features), 0)
    count = len(features)
    return distances * (count * (count - 1) / distances.sum())


def _itself(features: Tensor) -> Tensor:
    return torch.eye(len(features), dtype=torch.bool, device=features.device)


def _smooth_l1(change: Tensor) -> Tensor:
    """Sum of u^2/2 where |u| < 1 and |u| - 1/2 elsewhere."""
    return F.smooth_l1_loss(change, torch.zeros_like(change), reduction="sum")
