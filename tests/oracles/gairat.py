"""GAIRAT's weights and loss, written out sample by sample."""

import math

import numpy as np

from oracles.methods import log_softmax
from oracles.network import forward


def weight(kappa, steps, lam, weighting="tanh"):
    """The weight of one sample before normalisation; an odd number of steps is halved downwards."""
    if weighting == "linear":
        return (steps + 1 - kappa) / (steps + 1)
    if steps % 2 == 0:
        score = lam + 5 * (1 - 2 * kappa / steps)
    else:
        score = lam + 5 * (math.floor(steps / 2) - kappa) / math.floor(steps / 2)
    if weighting == "sigmoid":
        return 1 / (1 + math.exp(-score))
    return 0.5 * (1 + math.tanh(score))


def normalised(kappas, steps, lam, weighting="tanh"):
    """The weights of a batch, with mean 1."""
    raw = [weight(kappa, steps, lam, weighting) for kappa in kappas]
    return [len(raw) * value / sum(raw) for value in raw]


def loss(adversarial, perturbed, y, weights):
    """Weighted mean of the cross-entropies on x'."""
    logits = forward(adversarial, perturbed, True)[1]
    total = np.zeros((), logits.dtype)
    for b in range(len(y)):
        total = total - weights[b] * log_softmax(logits[b])[y[b]]
    return total / len(y)
