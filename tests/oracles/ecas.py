"""ECAS: the radius of each sample and the smoothed cross-entropy, written out sample by sample."""

import numpy as np

from oracles.methods import log_softmax
from oracles.network import forward


def entropy(row):
    return -sum(np.exp(value) * value for value in log_softmax(row))


def radii(logits, cycle, epoch, drawn, high, low):
    """(the radius of epoch `epoch`, from 0; that of each sample), where `drawn` is the batch's strong radius."""
    own = sorted(cycle)[epoch % len(cycle)]
    found = []
    for row in logits:
        uncertain = entropy(row)
        if uncertain > high:
            found.append(min(cycle))
        elif uncertain < low:
            found.append(drawn)
        else:
            found.append(own)
    return own, found


def smoothed(adversarial, perturbed, y, label):
    """Cross-entropy of x' against a target of `label` on the true class and equal shares on the others."""
    logits = forward(adversarial, perturbed, True)[1]
    total = 0.0
    for b in range(len(y)):
        logs = log_softmax(logits[b])
        for c in range(len(logs)):
            target = label if c == y[b] else (1 - label) / (len(logs) - 1)
            total = total - target * logs[c]
    return total / len(y)
