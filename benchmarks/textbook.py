"""The training loop as the papers describe it, for benchmarks/step.py to be compared with.

Float32 in torch's default layout, parameters with gradient, the losses as their formulas read. TRADES predicts x anew
in each step of its attack and once more for its loss, as its authors' code does; AT and AWP call backward() in the
attack and so compute gradients of parameters as well, as several authors' codes do but not all: `lean` has it without.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.build import build
from engine.step import Batch

EPS, STEP, STEPS = 0.031, 0.007, 10


class Textbook:
    """The loop of the papers. `train` adds M and L_TP."""

    def __init__(self, method: str, recipe: Any, train: bool, lean: bool) -> None:
        self.method, self.lean = method, lean or method in ("trades", "mart")
        torch.manual_seed(1)
        self.model = build(recipe.model, 3, 32, 10)
        self.standard = build(recipe.standard, 3, 32, 10) if train else None
        self.proxy = copy.deepcopy(self.model)
        weights = [*self.model.parameters(), *(self.standard.parameters() if self.standard is not None else [])]
        self.optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=2e-4)

    def step(self, batch: Batch) -> None:
        """One update."""
        x, y = batch.x.contiguous(), batch.y
        adversarial = x
        if self.method != "standard":
            self.model.eval()
            adversarial = self.attack(x, y)
        self.model.train()
        undo = self.perturb_weights(adversarial, y) if self.method == "awp" else None
        self.optimizer.zero_grad()
        features, loss = self.loss(x, adversarial, y)
        if self.standard is not None:
            output = self.standard.train()(x)
            topology = divergence(neighbor_graph(output.features.detach()), neighbor_graph(features))
            loss = loss + F.cross_entropy(output.logits, y) + topology
        loss.backward()
        self.optimizer.step()
        if undo is not None:
            with torch.no_grad():
                for weight, moved in undo:
                    weight -= moved

    def attack(self, x: Tensor, y: Tensor) -> Tensor:
        """x' of K steps."""
        adversarial = x + 0.001 * torch.randn_like(x)
        for _ in range(STEPS):
            adversarial = adversarial.detach().requires_grad_()
            logits = self.model(adversarial).logits
            if self.method == "trades":
                natural = self.model(x).logits
                loss = F.kl_div(F.log_softmax(logits, 1), F.softmax(natural, 1), reduction="sum")
            else:
                loss = F.cross_entropy(logits, y)
            if self.lean:
                gradient = torch.autograd.grad(loss, adversarial)[0]
            else:
                loss.backward()
                gradient = adversarial.grad
            adversarial = adversarial.detach() + STEP * torch.sign(gradient.detach())
            adversarial = torch.min(torch.max(adversarial, x - EPS), x + EPS).clamp(0, 1)
        return adversarial.detach()

    def loss(self, x: Tensor, adversarial: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The features that TRAIN compares, and L_robust."""
        if self.method in ("standard", "at", "awp"):
            output = self.model(adversarial)
            return output.features, F.cross_entropy(output.logits, y)
        natural, output = self.model(x).logits, self.model(adversarial)
        if self.method == "trades":
            again = F.softmax(self.model(x).logits, 1)
            kl = F.kl_div(F.log_softmax(output.logits, 1), again, reduction="batchmean")
            return output.features, F.cross_entropy(natural, y) + 6 * kl
        p, q = F.softmax(natural, 1), F.softmax(output.logits, 1)
        wrong = q.scatter(1, y[:, None], -1.0).max(1).values
        boosted = F.cross_entropy(output.logits, y) - torch.log(1.0001 - wrong + 1e-12).mean()
        kl = (p * (torch.log(p + 1e-12) - torch.log(q + 1e-12))).sum(1)
        return output.features, boosted + 6 * (kl * (1.0000001 - p.gather(1, y[:, None])[:, 0])).mean()

    def perturb_weights(self, adversarial: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Move the weights to where the loss of a copy ascends; returns by how much."""
        self.proxy.load_state_dict(self.model.state_dict())
        self.proxy.train().zero_grad()
        F.cross_entropy(self.proxy(adversarial).logits, y).backward()
        moves = []
        with torch.no_grad():
            for weight, twin in zip(self.model.parameters(), self.proxy.parameters(), strict=True):
                if weight.dim() > 1 and twin.grad is not None:
                    moved = 0.01 * weight.norm() / (twin.grad.norm() + 1e-20) * twin.grad
                    weight += moved
                    moves.append((weight, moved))
        return moves


def neighbor_graph(features: Tensor) -> Tensor:
    """p_{i|j} of TRAIN as its formula reads."""
    unit = features / features.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    itself = torch.eye(len(unit), dtype=torch.bool)
    rho = distance.masked_fill(itself, torch.inf).min(0).values
    affinity = (2 - (distance - rho)).masked_fill(itself, 0)
    return affinity / affinity.sum(0)


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """L_TP: the sum over all pairs."""
    inside = ~torch.eye(len(p), dtype=torch.bool)
    p, q = p[inside], q[inside]
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
