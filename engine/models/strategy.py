"""The strategy network S of LAS (Jia et al., CVPR 2022): it looks at an image and says how to attack it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.losses import cross_entropy, wide
from engine.models.resnet import ResNet18


class Strategy(nn.Module):
    """A ResNet-18 with a linear head for each decision, and the momentum of its own SGD.

    The heads are slices of one linear layer. The momentum is among the parameters, so that a checkpoint holds it.
    """

    def __init__(self, channels: int, choices: Sequence[int], width: int = 64) -> None:
        """`choices` holds the number of options of each decision, `width` the channels of the first stage."""
        super().__init__()
        self.choices = list(choices)
        self.network = ResNet18(channels, sum(self.choices), width)
        self.momentum = nn.ParameterList(
            nn.Parameter(torch.zeros_like(weight), requires_grad=False) for weight in self.network.parameters()
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The logits of each decision [B, options] for images x [B, C, H, W] in [0, 1]."""
        return torch.split(self.network(x).logits, self.choices, dim=1)

    def descend(self, loss: Tensor, rate: float, momentum: float, weight_decay: float) -> None:
        """One step of SGD down the scalar `loss`, whose gradient is scaled to norm 1 where it is longer."""
        weights = list(self.network.parameters())
        gradients = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            norm = torch.stack([gradient.norm() for gradient in gradients]).norm().clamp(min=1)
            for weight, gradient, velocity in zip(weights, gradients, self.momentum, strict=True):
                velocity.mul_(momentum).add_(gradient / norm + weight_decay * weight)
                weight.sub_(rate * velocity)


def sample(decisions: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """One action [B] int64 for each decision, drawn from softmax(logits), logits [B, options].

    By the Gumbel-max trick: argmax of logits - ln E with E exponential. Unlike torch.multinomial it takes logits that
    are no numbers; then the loss will be none either, which the engine reports.
    """
    actions = []
    for logits in decisions:
        noise = torch.empty_like(wide(logits.detach())).exponential_(generator=generator).log()
        actions.append((wide(logits.detach()) - noise).argmax(dim=1))
    return actions


def strategy_loss(decisions: Sequence[Tensor], actions: Sequence[Tensor], reward: Tensor) -> Tensor:
    """sum over decisions of mean_b(-ln S(a_b|x_b) R): REINFORCE, no baseline. `reward` R is a scalar."""
    losses = [cross_entropy(logits, action) for logits, action in zip(decisions, actions, strict=True)]
    return torch.stack(losses).sum() * reward
