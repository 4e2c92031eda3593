"""Contrastive representation distillation (CRD, Tian et al., ICLR 2020): M' and M see the same image in one embedding.

Each network's features go through a linear embedding to a unit vector, and a memory bank holds one such vector of
each training image for each network. An image's vector of one network is told from noise, which is the other
network's bank at images of other classes (noise-contrastive estimation).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.losses import wide
from engine.options import option
from engine.randomness import derive, generator
from engine.regularizers.base import Term

if TYPE_CHECKING:
    from engine.step import Step
    from engine.task import Task

EPSILON = 1e-7  # of the authors' code


@dataclass(frozen=True)
class Crd(Term):
    """CRD (Tian et al. 2020): contrastive distillation of M on x into M' on x', with two memory banks."""

    needs_standard: ClassVar[bool] = True
    needs_whole_batch: ClassVar[bool] = True  # the negatives of a step are those from before it
    inferred: ClassVar[str] = (
        "the TRAIN paper does not say how it uses CRD: M on x teaches M' on x', weight 0.8 unless set otherwise"
    )

    weight: float = option(0.8, ge=0.0, help="weight of the loss")
    negatives: int = option(16384, ge=1, help="images of other classes that each image is told from")
    dim: int = option(128, ge=1, help="dimension of the embedding")
    temperature: float = option(0.07, gt=0.0, help="divides the cosines")
    momentum: float = option(0.5, ge=0.0, lt=1.0, help="share of the old vector when a bank is updated")

    def prepared(self, task: Task) -> Self:
        """With new embeddings and banks. Raises ValueError where all training images are of one class."""
        if bool((task.labels == task.labels[0]).all()):
            raise ValueError("terms.crd: all training images are of one class, but it needs images of others")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(task.recipe.run.seed, "init", "crd"))
            memory = CrdMemory(task, self.dim)
        return replace(self, memory=memory.to(task.device))

    def loss(self, step: Step) -> Tensor:
        """The sum of both directions, student to the teacher's bank and teacher to the student's; then both banks move
        towards this batch. Trains both embeddings, and M' but not M. In float32 or wider, also under autocast.
        """
        memory = self.memory
        assert isinstance(memory, CrdMemory), "prepared makes it"
        batch = step.batch
        chance = generator(batch.y.device, memory.seed, "crd", step.position.epoch, step.position.batch)
        noise = draw_negatives(memory.labels, batch.y, self.negatives, chance)
        images = torch.cat([batch.index.unsqueeze(1), noise], dim=1)
        with torch.autocast(batch.y.device.type, enabled=False):
            student = memory.student(wide(step.adversarial.features))
            teacher = memory.teacher(wide(step.standard.features.detach()))
            towards_teacher = memory.teacher.contrast(student, images, self.temperature)
            towards_student = memory.student.contrast(teacher, images, self.temperature)
            memory.student.remember(student.detach(), batch.index, self.momentum)
            memory.teacher.remember(teacher.detach(), batch.index, self.momentum)
            return towards_teacher + towards_student


class CrdMemory(nn.Module):
    """Both networks' embeddings and banks, and what negatives are drawn by."""

    def __init__(self, task: Task, dim: int) -> None:
        super().__init__()
        self.student = Embedding(task.features, dim, len(task.labels))
        self.teacher = Embedding(task.standard_features, dim, len(task.labels))
        self.labels, self.seed = task.labels, task.recipe.run.seed  # the run has them: in no checkpoint


class Embedding(nn.Module):
    """Linear embedding of one network's features [B, D] as unit vectors [B, E], and its bank [n, E] of all images."""

    bank: Tensor
    total: Tensor

    def __init__(self, features: int, dim: int, images: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, dim)
        bound = (dim / 3) ** -0.5
        self.register_buffer("bank", torch.empty(images, dim).uniform_(-bound, bound))
        self.register_buffer("total", torch.zeros(()))  # Z; 0: not known before the first batch

    def forward(self, features: Tensor) -> Tensor:
        """features [B, D] -> unit vectors [B, E]."""
        return F.normalize(self.linear(features), dim=1)

    def contrast(self, vectors: Tensor, images: Tensor, temperature: float) -> Tensor:
        """-(1/B) sum_b [ ln P(b, 0) + sum_{k >= 1} ln(1 - P(b, k)) ], noise-contrastive estimation.

        P is the probability that the bank's vector of images[b, k] belongs to the other network's vectors[b] and is no
        noise. vectors [B, E], images [B, 1 + K] int64 with the image itself first -> scalar.
        """
        # All products and then those that are asked for: n x E times B is less than B x K rows of the bank.
        scores = ((vectors @ self.bank.T).gather(1, images) / temperature).exp()
        estimate = len(self.bank) * scores.detach().mean()
        self.total = torch.where(self.total > 0, self.total, estimate)
        odds = scores / self.total
        noise = (images.shape[1] - 1) / len(self.bank)
        itself, others = odds[:, 0], odds[:, 1:]
        known = (itself / (itself + noise + EPSILON)).log()
        return -(known + (noise / (others + noise + EPSILON)).log().sum(dim=1)).mean()

    def remember(self, vectors: Tensor, index: Tensor, momentum: float) -> None:
        """Move the bank's vectors of the images `index` [B] towards `vectors` [B, E]."""
        moved = F.normalize(momentum * self.bank[index] + (1 - momentum) * vectors, dim=1)
        # Into a new tensor: the gradient of this step still needs the old bank.
        self.bank = self.bank.index_copy(0, index, moved)


def draw_negatives(labels: Tensor, y: Tensor, count: int, chance: torch.Generator) -> Tensor:
    """For each of y [B], `count` positions in labels [n] whose label is another one; int64 [B, count].

    Uniform and without replacement; with replacement for a class that has fewer others, as in the authors' code.
    """
    other = labels != y.unsqueeze(1)
    available = other.sum(dim=1, keepdim=True)
    # float64, since equal numbers would leave the order open
    order = torch.rand(other.shape, dtype=torch.float64, device=y.device, generator=chance).masked_fill(~other, -1)
    order = order.topk(min(count, len(labels)), dim=1).indices
    ranks = torch.rand(len(y), count, dtype=torch.float64, device=y.device, generator=chance) * available
    ranks = torch.where(available < count, ranks.long(), torch.arange(count, device=y.device))
    return order.gather(1, ranks)
