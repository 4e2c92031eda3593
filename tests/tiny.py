"""A learnable toy data set and a toy network, for tests that evaluate something."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.data.base import Split, Splits
from engine.models.output import Output


class TinyNet(nn.Module):
    """MLP with BatchNorm and dropout, so that a forward in the wrong mode shows."""

    def __init__(self, classes=10, inputs=36, width=24):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1)
        )
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        features = self.body(x)
        return Output(features, self.head(features))


def tiny_split(n, classes, seed):
    """n noisy copies of one 6x6 pattern per class."""
    patterns = torch.randint(40, 216, (classes, 1, 6, 6), generator=torch.Generator().manual_seed(99))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=draw)
    noise = torch.randint(-40, 41, (n, 1, 6, 6), generator=draw)
    return Split((patterns[labels] + noise).clamp(0, 255).to(torch.uint8), labels)


def tiny_splits(classes=10, train=90, test=50):
    return Splits(tiny_split(train, classes, 1), tiny_split(test, classes, 2), classes, tiny_split(20, classes, 3))


def trained(splits, steps=60, seed=0, make=TinyNet):
    """A TinyNet, or what `make` makes of the number of classes, that has learnt the training split, in train mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make(splits.classes)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.2)
        x, y = splits.train.images.float() / 255, splits.train.labels
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            cross_entropy(network(x).logits, y).backward()
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return network
