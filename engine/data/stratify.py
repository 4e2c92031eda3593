"""A fixed order of examples from which every stratified part is cut: splits, hold-outs, subsets."""

from __future__ import annotations

import hashlib
from collections import Counter

import torch
from torch import Tensor


def spread(labels: Tensor, purpose: str) -> Tensor:
    """Indices [n] int64 in an order whose every beginning and every end holds the classes in proportion.

    The order is a function of `labels` [n] and `purpose` alone: examples are ranked inside their class by the SHA-256
    of "purpose/index", and the ranks are interleaved by rank / class size. No random number generator takes part,
    so that no library version and no run's seed moves an example from one part to another.
    """
    classes = labels.tolist()
    sizes, seen = Counter(classes), Counter[int]()
    places: list[tuple[float, int]] = []
    hashed = [hashlib.sha256(f"{purpose}/{index}".encode()).digest() for index in range(len(classes))]
    for index in sorted(range(len(classes)), key=hashed.__getitem__):
        label = classes[index]
        places.append(((seen[label] + 0.5) / sizes[label], index))
        seen[label] += 1
    places.sort(key=lambda place: place[0])  # stable: equal places stay in the order of their hashes
    return torch.tensor([index for _, index in places], dtype=torch.int64)
