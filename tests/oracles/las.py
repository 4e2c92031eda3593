"""LAS: the actions, the losses with a beta for each sample, the reward and the update of S, number by number."""

import numpy as np

from oracles import awp, ecas, pgd
from oracles.methods import cross_entropy, kl, log_softmax
from oracles.network import forward, gradient, track


def choose(logits, waiting):
    """The action of each sample [B]: the option that comes first, if option c comes after `waiting`[b, c] / p_c."""
    actions = []
    for b in range(len(logits)):
        logs = log_softmax(logits[b])
        times = [waiting[b][c] / np.exp(logs[c]) for c in range(len(logs))]
        actions.append(times.index(min(times)))
    return actions


def strategy_loss(decisions, actions, reward):
    """REINFORCE: the mean over the samples of -ln S(a|x) R, summed over the decisions."""
    total = 0.0
    for logits, action in zip(decisions, actions, strict=True):
        for b in range(len(logits)):
            total = total - log_softmax(logits[b])[action[b]] * reward / len(logits)
    return total


def descend(weights, speeds, slopes, rate, momentum, decay):
    """(weights, speeds) after a step of SGD; lists of arrays. The slopes are shortened to a common length of 1."""
    length = np.sqrt(sum(value**2 for slope in slopes for value in slope.ravel()))
    found, faster = [], []
    for w, speed, slope in zip(weights, speeds, slopes, strict=True):
        faster.append(momentum * speed + slope * (1 / length if length > 1 else 1.0) + decay * w)
        found.append(w - rate * faster[-1])
    return found, faster


def trades(w, x, images, y, beta):
    """TRADES' loss with one beta for each sample."""
    natural, robust = forward(w, x, True)[1], forward(w, images, True)[1]
    divergence = sum(beta[b] * kl(natural[b : b + 1], robust[b : b + 1]) for b in range(len(y))) / len(y)
    return cross_entropy(natural, y) + divergence


def hardness(w, x, images, y, base, beta):
    """R1, cut."""
    if base == "trades":
        return min(trades(w, x, images, y, beta), 20.0)
    return min(cross_entropy(forward(w, images, False)[1], y), 10.0)


def updated(w, x, images, y, base, beta, label, gamma, rate, decay):
    """The weights and running statistics of M' after one step of SGD on x'."""
    if base == "trades":
        loss, seen = lambda v: trades(v, x, images, y, beta), [x, images, x]
    else:
        loss, seen = lambda v: ecas.smoothed(v, images, y, label), [images]
    moved = dict(w)
    if base == "awp":
        for name, v in awp.perturbation(w, x, images, y, "at", 0.0, gamma).items():
            moved[name] = w[name] + v
    after = dict(w)
    after["norm.running_mean"], after["norm.running_var"] = track(moved, seen)
    for name in awp.LEARNED:
        slope = gradient(lambda a, n=name: loss({**moved, n: a}), moved[name])
        after[name] = w[name] - rate * (slope + decay * moved[name])
    return after


def strongest(w, x, y, starts, eps, step_size, steps, until_wrong):
    """(the image of the restart with the highest CE for each sample; w with the statistics that all forwards leave)."""
    best, highest, seen = x.copy(), [-np.inf] * len(y), []
    count = len(y)
    for start in starts:
        images = np.clip(start, 0.0, 1.0)
        for _ in range(steps):
            seen.append(images)
            right = [int(np.argmax(row)) == label for row, label in zip(forward(w, images, True)[1], y, strict=True)]
            if until_wrong and not any(right):
                break
            images = pgd.attack(
                w, x, y, images, [eps] * count, [step_size] * count, [1] * count, "ce", True, until_wrong
            )[0]
        seen.append(images)
        logits = forward(w, images, True)[1]
        for b in range(count):
            loss = -log_softmax(logits[b])[y[b]]
            if loss >= highest[b]:
                best[b], highest[b] = images[b], loss
    mean, variance = track(w, seen)
    return best, {**w, "norm.running_mean": mean, "norm.running_var": variance}


def accuracy(w, images, y):
    logits = forward(w, images, False)[1]
    return sum(int(np.argmax(logits[b])) == y[b] for b in range(len(y))) / len(y)
