"""Topology score: does a query's neighbourhood in feature space carry its label?

The accuracy of a k-nearest-neighbour vote among the training set's penultimate features, natural and adversarial
together: of natural test images (`topo_natural`) and of their PGD-20 images (`topo_robust`). k = 30 and plain votes;
the distance is cosine unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Distance = Literal["cosine", "euclidean"]


def knn_predict(
    support_features: Tensor,
    support_labels: Tensor,
    query_features: Tensor,
    k: int,
    distance: Distance = "cosine",
    chunk: int = 512,
    poll: Callable[[], None] = lambda: None,
) -> Tensor:
    """Labels [Q] int64 voted for by the k nearest of support_features [S, D] with labels [S], for queries [Q, D].

    Each neighbour has one vote; among labels with most votes the one with the smallest summed distance wins, and
    the smallest label among equal sums. `chunk` queries are compared with the support at a time, with `poll` called
    before each. Raises ValueError if k is not between 1 and S.
    """
    if not 1 <= k <= len(support_features):
        raise ValueError(f"k is {k}, but must be between 1 and the {len(support_features)} points of the support set")
    if distance == "cosine":
        support_features, query_features = normalize(support_features, dim=1), normalize(query_features, dim=1)
    elif distance != "euclidean":
        raise ValueError(f"distance is {distance!r}, expected cosine or euclidean")
    classes = int(support_labels.max()) + 1
    parts = []
    for queries in torch.split(query_features, chunk):
        poll()
        distances = 1 - queries @ support_features.T if distance == "cosine" else torch.cdist(queries, support_features)
        nearest, positions = distances.topk(k, dim=1, largest=False)
        parts.append(_vote(nearest, support_labels[positions], classes))
    return torch.cat(parts) if parts else support_labels.new_empty(0)


def _vote(distances: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Winning label [B] of neighbours with distances and labels [B, k]."""
    empty = distances.new_zeros(len(distances), classes)
    votes = empty.scatter_add(1, labels, torch.ones_like(distances))
    sums = empty.scatter_add(1, labels, distances)
    most = votes == votes.max(dim=1, keepdim=True).values
    return sums.masked_fill(~most, torch.inf).argmin(dim=1)
