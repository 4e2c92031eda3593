"""The losses that methods and attacks share. Logits of half precision are widened to float32 first."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(values: Tensor) -> Tensor:
    """`values` in float32 if they are of half precision; float32 and float64 stay as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Mean over the batch of -ln softmax(logits)_y. logits [B, C], y [B] int64 -> scalar."""
    return F.cross_entropy(wide(logits), y)


def cross_entropy_per_sample(logits: Tensor, y: Tensor) -> Tensor:
    """-ln softmax(logits)_y of each sample. logits [B, C], y [B] int64 -> [B]."""
    return F.cross_entropy(wide(logits), y, reduction="none")


def smoothed_cross_entropy(logits: Tensor, y: Tensor, label: float) -> Tensor:
    """Mean cross-entropy with target `label` on the true class and (1 - label)/(C - 1) on each other class.

    logits [B, C], C > 1, y [B] int64 -> scalar.
    """
    log_p = F.log_softmax(wide(logits), dim=1)
    true = log_p.gather(1, y.unsqueeze(1)).squeeze(1)
    others = (1 - label) / (log_p.shape[1] - 1)
    return -((label - others) * true + others * log_p.sum(dim=1)).mean()


def kl_divergence(natural_logits: Tensor, other_logits: Tensor) -> Tensor:
    """Mean over the batch of KL(p || q), p = softmax(natural_logits), q = softmax(other_logits). [B, C] x 2 -> scalar.

    TRADES eq. 5. Gradient flows into both arguments.
    """
    return kl_divergence_per_sample(natural_logits, other_logits).mean()


def kl_divergence_per_sample(natural_logits: Tensor, other_logits: Tensor) -> Tensor:
    """KL(softmax(natural_logits) || softmax(other_logits)) of each sample. [B, C] x 2 -> [B].

    Written with log-probabilities throughout: the logarithm of a probability that has underflown to 0 would
    make the loss finite and its gradient NaN.
    """
    log_p = F.log_softmax(wide(natural_logits), dim=1)
    log_q = F.log_softmax(wide(other_logits), dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """max_{k != y} z_k - z_y of each sample, the loss of Carlini & Wagner without confidence. [B, C], [B] -> [B].

    Negative where the sample is classified correctly.
    """
    logits = wide(logits)
    label = y.unsqueeze(1)
    others = logits.scatter(1, label, -torch.inf)
    return others.amax(dim=1) - logits.gather(1, label).squeeze(1)


def mse(first: Tensor, second: Tensor) -> Tensor:
    """Mean of the squared differences over all entries. Two tensors of one shape -> scalar."""
    return F.mse_loss(wide(first), wide(second))
