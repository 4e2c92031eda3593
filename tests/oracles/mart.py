"""MART, written out sample by sample."""

import numpy as np

from oracles.methods import log_softmax
from oracles.network import forward


def loss(adversarial, x, perturbed, y, beta):
    natural = forward(adversarial, x, True)[1]
    robust = forward(adversarial, perturbed, True)[1]
    return boosted(robust, y) + beta * weighted_kl(natural, robust, y)


def boosted(logits, y):
    total = 0.0
    for b, label in enumerate(y):
        p = [np.exp(value) for value in log_softmax(logits[b])]
        worst = max((p[c] for c in range(len(p)) if c != label), key=lambda value: value.real)
        total = total - np.log(p[label]) - np.log(1.0001 - worst + 1e-12)
    return total / len(y)


def weighted_kl(natural, robust, y):
    total = 0.0
    for b, label in enumerate(y):
        p = [np.exp(value) for value in log_softmax(natural[b])]
        q = [np.exp(value) for value in log_softmax(robust[b])]
        kl = 0.0
        for c in range(len(p)):
            kl = kl + p[c] * (np.log(p[c]) - np.log(q[c] + 1e-12))
        total = total + kl * (1.0000001 - p[label])
    return total / len(y)
