"""Massive contrastive adversaries (MCA, Yang et al., ICDM 2021): x' stays near x, far from images of other classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.losses import wide
from engine.options import option
from engine.regularizers.base import Term

if TYPE_CHECKING:
    from engine.step import Step
    from engine.task import Task


@dataclass(frozen=True)
class Mca(Term):
    """MCA (Yang et al. 2021): contrast of x' with x against remembered images of other classes, all seen by M'."""

    needs: ClassVar[tuple[str, ...]] = ("adversarial", "natural")
    needs_whole_batch: ClassVar[bool] = True  # the negatives of a step are those from before it
    inferred: ClassVar[str] = (
        "only MCA's abstract is known to us: the form of its loss and all its settings are our choice"
    )

    weight: float = option(1.0, ge=0.0, help="weight of the loss")
    temperature: float = option(0.1, gt=0.0, help="divides the cosines")
    negatives: int = option(4096, ge=1, help="past images that are remembered; those of other classes are negatives")

    def prepared(self, task: Task) -> Self:
        """With an empty memory of natural features."""
        return replace(self, memory=McaMemory(self.negatives, task.features).to(task.device))

    def loss(self, step: Step) -> Tensor:
        """Mean over the batch of -ln( e^(u'u/t) / (e^(u'u/t) + sum over v of e^(u'v/t)) ), t the temperature.

        u' and u are the unit features of M' on x' and on x, and gradient flows into both: pulling x towards x' is as
        good as the opposite. v are those of past x with other labels, held constant; without any the loss is 0. The
        batch is remembered afterwards. Computed in float32 or wider, also under autocast.
        """
        memory = self.memory
        assert isinstance(memory, McaMemory), "prepared makes it"
        with torch.autocast(step.x.device.type, enabled=False):
            adversarial = F.normalize(wide(step.adversarial.features), dim=1)
            natural = F.normalize(wide(step.natural.features), dim=1)
            positive = (adversarial * natural).sum(dim=1, keepdim=True)
            other = (memory.labels != step.y.unsqueeze(1)) & (memory.labels >= 0)
            negative = (adversarial @ memory.bank.T).masked_fill(~other, -torch.inf)
            scores = torch.cat([positive, negative], dim=1) / self.temperature
            memory.remember(natural.detach(), step.y)
            return -F.log_softmax(scores, dim=1)[:, 0].mean()


class McaMemory(nn.Module):
    """Ring of the unit features and labels of the last images."""

    bank: Tensor
    labels: Tensor
    position: Tensor

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(size, features))
        self.register_buffer("labels", torch.full((size,), -1))  # -1: nothing is remembered here yet
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Put features [B, D] with labels [B] in the place of the oldest ones; of more than fit, the last."""
        size = len(self.labels)
        features, labels = features[-size:], labels[-size:]
        places = (self.position + torch.arange(len(labels), device=labels.device)) % size
        # Into new tensors: the gradient of this step still needs the old bank.
        self.bank = self.bank.index_copy(0, places, features)
        self.labels = self.labels.index_copy(0, places, labels)
        self.position = (self.position + len(labels)) % size
