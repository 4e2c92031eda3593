"""Topology score: does a query's neighbourhood in feature space carry its label?

The accuracy of a k-nearest-neighbour vote among the training set's penultimate features, natural and adversarial
together: of natural test images (`topo_natural`) and of their PGD-20 images (`topo_robust`). k = 30 and plain votes;
the distance is cosine unless asked otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Distance = Literal["cosine", "euclidean"]

KS = (5, 10, 20, 30, 40, 50)
"""The numbers of neighbours of Fig. 3 of the TRAIN paper, which are recorded beside the one that was asked for."""


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

    As `knn_predict_each` with one k.
    """
    return knn_predict_each(support_features, support_labels, query_features, [k], distance, chunk, poll)[k]


def knn_predict_each(
    support_features: Tensor,
    support_labels: Tensor,
    query_features: Tensor,
    ks: Collection[int],
    distance: Distance = "cosine",
    chunk: int = 512,
    poll: Callable[[], None] = lambda: None,
) -> dict[int, Tensor]:
    """For each k of `ks`, the labels [Q] int64 that the k nearest vote for; the neighbours are looked for once.

    Of equally far points the earlier ones are nearer. Each neighbour has one vote; among labels with most votes the
    one with the smallest summed distance wins, and the smallest label among equal sums. `chunk` queries are compared
    with the support at a time, with `poll` called before each. Raises ValueError if a k is not between 1 and S.
    """
    for k in ks:
        if not 1 <= k <= len(support_features):
            points = len(support_features)
            raise ValueError(f"k is {k}, but must be between 1 and the {points} points of the support set")
    if distance == "cosine":
        support_features, query_features = normalize(support_features, dim=1), normalize(query_features, dim=1)
    elif distance != "euclidean":
        raise ValueError(f"distance is {distance!r}, expected cosine or euclidean")
    classes = int(support_labels.max()) + 1
    parts: dict[int, list[Tensor]] = {k: [support_labels.new_empty(0)] for k in ks}
    for queries in torch.split(query_features, chunk):
        poll()
        distances = 1 - queries @ support_features.T if distance == "cosine" else torch.cdist(queries, support_features)
        nearest, positions = _nearest(distances, max(ks))
        for k, votes in parts.items():
            votes.append(_vote(nearest[:, :k], support_labels[positions[:, :k]], classes))
    return {k: torch.cat(votes) for k, votes in parts.items()}


def _nearest(distances: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Distances and positions [B, k] of the k nearest of [B, S], in order, the earlier ones of equally far points.

    So the nearest of a smaller k are the first of these. topk leaves open which of equals it takes and in which order.
    """
    positions = distances.topk(min(k + 1, distances.shape[1]), dim=1, largest=False).indices.sort(dim=1).values
    nearest, order = distances.gather(1, positions).sort(dim=1, stable=True)
    positions = positions.gather(1, order)
    torn = nearest[:, k - 1] == nearest[:, -1]  # topk may have taken the later of equals
    if torn.any():
        positions[torn] = distances[torn].argsort(dim=1, stable=True)[:, : positions.shape[1]]
    return nearest[:, :k], positions[:, :k]


def _vote(distances: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Winning label [B] of neighbours with distances and labels [B, k]."""
    empty = distances.new_zeros(len(distances), classes)
    votes = empty.scatter_add(1, labels, torch.ones_like(distances))
    sums = empty.scatter_add(1, labels, distances)
    most = votes == votes.max(dim=1, keepdim=True).values
    return sums.masked_fill(~most, torch.inf).argmin(dim=1)
