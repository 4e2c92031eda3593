"""FAT's early-stopped attack: a queue of samples, each with its own tolerance, written out pixel by pixel."""

import numpy as np

from oracles.network import forward, gradient
from oracles.pgd import sample_loss


def attack(w, x, y, start, eps, step_size, steps, tolerance, loss="ce", noises=None):
    """(x', order, steps taken): one image after the other; order lists the samples as they left the queue.

    Before each step the iterate is looked at: misclassified without tolerance left, it leaves; misclassified with
    tolerance left, it spends one. `noises` [step][B, ...] is added to each step, inside the projection.
    """
    target = forward(w, x, False)[1]
    images = np.clip(start, 0.0, 1.0)
    left = [tolerance] * len(y)
    queue, order, taken = list(range(len(y))), [], [0] * len(y)
    for step in range(steps):
        staying = []
        for b in queue:
            wrong = int(np.argmax(forward(w, images[b : b + 1], False)[1][0])) != y[b]
            if wrong and left[b] == 0:
                order.append(b)
                continue
            left[b] -= wrong
            staying.append(b)
        queue = staying
        for b in queue:
            slope = gradient(
                lambda one, b=b: sample_loss(loss, forward(w, one, False)[1][0], y[b], target[b]), images[b : b + 1]
            )[0]
            taken[b] += 1
            for place in np.ndindex(x[b].shape):
                value = images[b][place] + step_size * np.sign(slope[place])
                if noises is not None:
                    value += noises[step][b][place]
                value = max(x[b][place] - eps, min(x[b][place] + eps, value))
                images[b][place] = max(0.0, min(1.0, value))
    return images, order + queue, taken
