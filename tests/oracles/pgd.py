"""Projected gradient ascent, pixel by pixel, with derivatives from the complex step."""

import numpy as np

from oracles.methods import log_softmax
from oracles.network import forward, gradient


def sample_loss(loss, row, label, target):
    """The loss of one sample from its logits; `target` holds its natural logits."""
    if loss == "ce":
        return -log_softmax(row)[label]
    if loss == "margin":
        wrong = [row[c] for c in range(len(row)) if c != label]
        return max(wrong, key=lambda value: value.real) - row[label]
    p, q = log_softmax(target), log_softmax(row)
    return sum(np.exp(p[c]) * (p[c] - q[c]) for c in range(len(p)))


def attack(w, x, y, start, eps, step_size, steps, loss="ce", training=False, until_wrong=False, noises=None):
    """x' [B, ...], and how many steps each sample took and took from a correct iterate.

    `eps`, `step_size`, `steps` are lists with a number for each sample; `start` is the first iterate and
    `noises` [step][B, ...] is added to each step.
    """
    target = forward(w, x, training)[1]
    images = start.copy()
    taken, correct = [0] * len(y), [0] * len(y)
    for step in range(max(steps)):
        before = images.copy()
        logits = forward(w, before, training)[1]

        def total(shifted, target=target):
            rows = forward(w, shifted, training)[1]
            return sum(sample_loss(loss, rows[b], y[b], target[b]) for b in range(len(y)))

        slope = gradient(total, before)
        for b in range(len(y)):
            right = int(np.argmax(logits[b])) == y[b]
            if step >= steps[b] or (until_wrong and not right):
                continue
            taken[b] += 1
            correct[b] += right
            for place in np.ndindex(x[b].shape):
                value = before[b][place] + step_size[b] * np.sign(slope[b][place])
                if noises is not None:
                    value += noises[step][b][place]
                value = max(x[b][place] - eps[b], min(x[b][place] + eps[b], value))
                images[b][place] = max(0.0, min(1.0, value))
    return np.clip(images, 0.0, 1.0), taken, correct
