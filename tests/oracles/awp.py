"""Adversarial weight perturbation, layer by layer, and one step of SGD around it."""

import numpy as np

from oracles.methods import at, trades
from oracles.network import gradient

LAYERS = ("first.weight", "last.weight")  # matrices named "weight"; norm.weight has one dimension
LEARNED = ("first.weight", "first.bias", "norm.weight", "norm.bias", "last.weight", "last.bias")


def base_loss(w, x, perturbed, y, base, beta):
    return at(w, x, perturbed, y) if base == "at" else trades(w, x, perturbed, y, beta)


def length(array):
    return np.sqrt(sum(value**2 for value in array.ravel()))


def perturbation(w, x, perturbed, y, base, beta, gamma):
    """v by layer name: gamma ||w|| g / (||g|| + 1e-20)."""
    found = {}
    for name in LAYERS:
        slope = gradient(lambda a, n=name: base_loss({**w, n: a}, x, perturbed, y, base, beta), w[name])
        found[name] = gamma * length(w[name]) * slope / (length(slope) + 1e-20)
    return found


def at_moved_weights(w, x, perturbed, y, base, beta, gamma):
    """(loss, gradient by name) at w + v."""
    v = perturbation(w, x, perturbed, y, base, beta, gamma)
    moved = {name: value + v[name] if name in v else value for name, value in w.items()}
    slopes = {
        name: gradient(lambda a, n=name: base_loss({**moved, n: a}, x, perturbed, y, base, beta), moved[name])
        for name in LEARNED
    }
    return base_loss(moved, x, perturbed, y, base, beta), slopes, moved


def step(w, momentum, x, perturbed, y, base, beta, gamma, rate, decay, inertia):
    """Weights and momentum after one step of SGD taken at w + v, and w <- w - v behind it."""
    _, slopes, moved = at_moved_weights(w, x, perturbed, y, base, beta, gamma)
    after, speeds = dict(w), {}
    for name in LEARNED:
        speeds[name] = inertia * momentum[name] + slopes[name] + decay * moved[name]
        after[name] = moved[name] - rate * speeds[name] - (moved[name] - w[name])
    return after, speeds
