"""L_TP written out pair by pair, in every reading; complex features give exact derivatives."""

import numpy as np


def cosine(first, second):
    product = sum(a * b for a, b in zip(first, second, strict=True))
    return product / (np.sqrt(sum(a * a for a in first)) * np.sqrt(sum(b * b for b in second)))


def nearest(features, others=()):
    """Distance of every sample to its nearest other one, in the batch or in the lists `others[j]`."""
    result = []
    for j in range(len(features)):
        distances = [1 - cosine(features[k], features[j]) for k in range(len(features)) if k != j]
        distances += [1 - cosine(row, features[j]) for row in (others[j] if len(others) else ())]
        result.append(min(distances, key=lambda value: value.real))
    return result


def graph(features, rho="batch", denominator="column", diagonal="exclude", others=(), held=None):
    """p[i][j], the probability of i given j; `held` are values of rho that do not move with the features."""
    count = len(features)
    shift = held or ([0.0] * count if rho == "none" else nearest(features, others))
    d = [[1 - cosine(features[i], features[j]) for j in range(count)] for i in range(count)]
    p = [[0.0] * count for _ in range(count)]
    for j in range(count):
        if denominator == "column":
            total = sum(2 - (d[k][j] - shift[j]) for k in range(count) if k != j)
        else:
            total = sum(2 - d[j][k] + shift[k] for k in range(count) if k != j)
        for i in range(count):
            if i != j:
                p[i][j] = (2 - (d[i][j] - shift[j])) / total
            elif diagonal == "include":
                p[i][j] = (2 + shift[j]) / total
    return p


def divergence(p, q, diagonal="exclude", reduction="sum", divergence="bernoulli", rescale=False):
    count, total, pairs = len(p), 0.0, 0
    for j in range(count):
        for i in range(count):
            if i == j and diagonal == "exclude":
                continue
            pairs += 1
            if divergence == "cross-entropy":
                total = total - p[i][j] * np.log(q[i][j])
            else:
                total = total + p[i][j] * np.log(p[i][j] / q[i][j])
            if divergence == "bernoulli":
                total = total + (1 - p[i][j]) * np.log((1 - p[i][j]) / (1 - q[i][j]))
    if reduction == "mean-columns":
        return total / count
    if reduction == "mean-pairs":
        return total / pairs
    return total * 128 / count if rescale else total


def loss(standard, adversarial, others=((), ()), **reading):
    shape = {key: value for key, value in reading.items() if key in ("rho", "denominator", "diagonal")}
    rest = {key: value for key, value in reading.items() if key not in ("rho", "denominator")}
    p = graph(standard, others=others[0], **shape)
    return divergence(p, graph(adversarial, others=others[1], **shape), **rest)
