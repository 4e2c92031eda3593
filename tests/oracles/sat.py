"""P-SAT's gated attack, written out pixel by pixel, and its two schedules as their authors write them."""

import numpy as np

from oracles.methods import log_softmax
from oracles.network import forward, gradient
from oracles.pgd import sample_loss


def gap(row, label):
    """Difficulty of one sample: the largest wrong probability less that of its label."""
    p = [np.exp(value) for value in log_softmax(row)]
    return max(p[c] for c in range(len(p)) if c != label) - p[label]


def linear(t, first, last, start, end):
    """The gate of epoch t (from 0), which rises in every epoch of first .. last - 1."""
    return start + (end - start) * min(max((t - first + 1) / (last - first), 0), 1)


def steps(t, epochs, start, end):
    """The gate of epoch t (from 0), with one equal rise at the start of each of `epochs`."""
    return start + (end - start) * sum(t >= epoch for epoch in epochs) / len(epochs)


def attack(w, x, y, start, eps, step_size, count, gate):
    """x' and the steps that each image took: it moves only while its difficulty is at most the gate."""
    images = start.copy()
    taken = [0] * len(y)
    for _ in range(count):
        for b in range(len(y)):
            before = images[b : b + 1].copy()
            if gap(forward(w, before, False)[1][0], y[b]) > gate:
                continue
            slope = gradient(lambda one, b=b: sample_loss("ce", forward(w, one, False)[1][0], y[b], None), before)[0]
            taken[b] += 1
            for place in np.ndindex(x[b].shape):
                value = before[0][place] + step_size * np.sign(slope[place])
                value = max(x[b][place] - eps, min(x[b][place] + eps, value))
                images[b][place] = max(0.0, min(1.0, value))
    return images, taken
