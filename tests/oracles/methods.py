"""Losses of the training methods, written out sample by sample and class by class."""

import numpy as np

from oracles.network import forward


def log_softmax(row):
    """Logarithms of the class probabilities of one sample."""
    largest = max(value.real for value in row)
    total = sum(np.exp(value - largest) for value in row)
    return [value - largest - np.log(total) for value in row]


def cross_entropy(logits, y):
    return sum(-log_softmax(logits[b])[y[b]] for b in range(len(y))) / len(y)


def kl(natural, other):
    total = 0.0
    for b in range(len(natural)):
        p, q = log_softmax(natural[b]), log_softmax(other[b])
        for c in range(len(p)):
            total = total + np.exp(p[c]) * (p[c] - q[c])
    return total / len(natural)


def mse(first, second):
    total = 0.0
    for b in range(first.shape[0]):
        for c in range(first.shape[1]):
            total = total + (first[b, c] - second[b, c]) ** 2
    return total / first.size


def at(adversarial, x, perturbed, y):
    return cross_entropy(forward(adversarial, perturbed, True)[1], y)


def trades(adversarial, x, perturbed, y, beta):
    natural = forward(adversarial, x, True)[1]
    return cross_entropy(natural, y) + beta * kl(natural, forward(adversarial, perturbed, True)[1])


def lbgat(adversarial, standard, x, perturbed, y, base, form, beta, gamma, alpha=1.0):
    """LBGAT without the cross-entropy of M: the authors' code ("official"), or with the base's own losses ("paper")."""
    natural = forward(adversarial, x, True)[1]
    robust = forward(adversarial, perturbed, True)[1]
    loss = gamma * mse(robust, forward(standard, x, True)[1])
    if form == "official" and base == "trades":
        loss = loss + beta * kl(natural, robust)
    if base == "alp":
        loss = loss + alpha * mse(robust, natural)
    if form == "paper" and base == "alp":
        loss = loss + 0.5 * cross_entropy(natural, y) + 0.5 * cross_entropy(robust, y)
    if form == "paper" and base == "at":
        loss = loss + at(adversarial, x, perturbed, y)
    if form == "paper" and base == "trades":
        loss = loss + trades(adversarial, x, perturbed, y, beta)
    return loss
