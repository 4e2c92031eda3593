"""ALP, written out: cross-entropy on both images or on x' alone, and the distance of their logits."""

from oracles.methods import cross_entropy, mse
from oracles.network import forward


def loss(adversarial, x, perturbed, y, form, weight):
    natural = forward(adversarial, x, True)[1]
    robust = forward(adversarial, perturbed, True)[1]
    paired = weight * mse(natural, robust)
    if form == "adversarial":
        return cross_entropy(robust, y) + paired
    return 0.5 * cross_entropy(natural, y) + 0.5 * cross_entropy(robust, y) + paired
