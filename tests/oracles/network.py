"""One tiny network twice: as a torch module, and written out in numpy loops.

flatten -> linear -> batch normalisation -> tanh (the features) -> linear (the logits). The numpy side also takes
complex numbers, so that derivatives come exactly from the complex step Im f(x + ih)/h instead of from autograd.
"""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

TINY = 1e-30  # the complex step; without cancellation it may be as small as floats go
EPSILON, MOMENTUM = 1e-5, 0.1  # of BatchNorm


class TorchNetwork(nn.Module):
    def __init__(self, seed, pixels=6, hidden=5, classes=4):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.first = nn.Linear(pixels, hidden)
            self.norm = nn.BatchNorm1d(hidden)
            self.last = nn.Linear(hidden, classes)
            nn.init.uniform_(self.norm.weight, 0.5, 1.5)
            nn.init.normal_(self.norm.bias)
            self.norm.running_mean.normal_()
            self.norm.running_var.uniform_(0.5, 1.5)
            self.first.weight.data *= 3
            self.last.weight.data *= 3
        self.calls = []
        self.double()

    def forward(self, x):
        self.calls.append(("bn-train" if self.norm.training else "bn-eval", x.detach().clone()))
        features = torch.tanh(self.norm(self.first(x.flatten(1))))
        return SimpleNamespace(features=features, logits=self.last(features))


def weights(module):
    """The module's parameters and statistics as numpy arrays, by name."""
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items() if value.dim() > 0}


def forward(w, x, training):
    """(features, logits, batch mean, batch variance) of images x [B, ...] under weights w."""
    x = x.reshape(len(x), -1)
    count, hidden = len(x), len(w["first.bias"])
    kind = np.result_type(x, *w.values())
    before = np.zeros((count, hidden), kind)
    for b in range(count):
        for h in range(hidden):
            before[b, h] = w["first.bias"][h] + sum(w["first.weight"][h, i] * x[b, i] for i in range(x.shape[1]))
    features = np.zeros((count, hidden), kind)
    means, variances = np.zeros(hidden, kind), np.zeros(hidden, kind)
    for h in range(hidden):
        means[h] = sum(before[b, h] for b in range(count)) / count
        variances[h] = sum((before[b, h] - means[h]) ** 2 for b in range(count)) / count
        mean = means[h] if training else w["norm.running_mean"][h]
        variance = variances[h] if training else w["norm.running_var"][h]
        for b in range(count):
            scaled = (before[b, h] - mean) / np.sqrt(variance + EPSILON)
            features[b, h] = np.tanh(w["norm.weight"][h] * scaled + w["norm.bias"][h])
    logits = np.zeros((count, len(w["last.bias"])), kind)
    for b in range(count):
        for c in range(logits.shape[1]):
            logits[b, c] = w["last.bias"][c] + sum(w["last.weight"][c, h] * features[b, h] for h in range(hidden))
    return features, logits, means, variances


def track(w, batches):
    """Running mean and variance after train-mode forwards on `batches`, in that order."""
    mean, variance = w["norm.running_mean"].copy(), w["norm.running_var"].copy()
    for x in batches:
        _, _, batch_mean, batch_variance = forward(w, x, training=True)
        unbiased = batch_variance * len(x) / (len(x) - 1)
        mean = (1 - MOMENTUM) * mean + MOMENTUM * batch_mean
        variance = (1 - MOMENTUM) * variance + MOMENTUM * unbiased
    return mean, variance


def gradient(function, array):
    """Derivative of the scalar `function` by every entry of `array`."""
    result = np.zeros(array.shape)
    for place in np.ndindex(array.shape):
        shifted = array.astype(complex)
        shifted[place] += 1j * TINY
        result[place] = np.imag(function(shifted)) / TINY
    return result
