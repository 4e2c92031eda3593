import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluate.topology_score import knn_predict


def by_hand(support, labels, queries, k, distance):
    """The vote, one query and one neighbour at a time."""

    def far(a, b):
        if distance == "euclidean":
            return math.dist(a, b)
        dot = sum(u * v for u, v in zip(a, b, strict=True))
        return 1 - dot / (math.hypot(*a) * math.hypot(*b))

    found = []
    for query in queries.tolist():
        ranked = sorted(
            (far(query, point), label) for point, label in zip(support.tolist(), labels.tolist(), strict=True)
        )
        votes, sums = defaultdict(int), defaultdict(float)
        for value, label in ranked[:k]:
            votes[label] += 1
            sums[label] += value
        found.append(min(votes, key=lambda label: (-votes[label], sums[label], label)))
    return found


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 12), classes=st.integers(2, 5))
def test_the_vote_is_that_of_a_plain_loop(distance, seed, k, classes):
    draw = torch.Generator().manual_seed(seed)
    support = torch.randn(12, 3, generator=draw, dtype=torch.float64)
    labels = torch.randint(classes, (12,), generator=draw)
    queries = torch.randn(7, 3, generator=draw, dtype=torch.float64)
    expected = by_hand(support, labels, queries, k, distance)
    for chunk in (1, 3, 100):
        assert knn_predict(support, labels, queries, k, distance, chunk).tolist() == expected


def test_a_tie_of_votes_goes_to_the_smallest_summed_distance():
    support = torch.tensor([[1.0], [4.0], [-2.0], [-2.5]])  # label 0: 1 + 4, label 1: 2 + 2.5
    labels = torch.tensor([0, 0, 1, 1])
    assert knn_predict(support, labels, torch.zeros(1, 1), 4, "euclidean").tolist() == [1]
    # One vote more beats any distance.
    assert knn_predict(support, labels, torch.zeros(1, 1), 3, "euclidean").tolist() == [1]
    assert knn_predict(support, labels, torch.zeros(1, 1), 1, "euclidean").tolist() == [0]


def test_equal_sums_go_to_the_smallest_label():
    support = torch.tensor([[1.0], [-1.0]])
    assert knn_predict(support, torch.tensor([3, 2]), torch.zeros(1, 1), 2, "euclidean").tolist() == [2]


def test_cosine_looks_at_directions_and_euclidean_at_places():
    support = torch.tensor([[100.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    query = torch.tensor([[2.0, 1.0]])
    assert knn_predict(support, labels, query, 1, "cosine").tolist() == [0]
    assert knn_predict(support, labels, query, 1, "euclidean").tolist() == [1]


def test_a_zero_feature_has_a_distance_too():
    predictions = knn_predict(
        torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([0, 1]), torch.tensor([[1.0, 1.0]]), 1
    )
    assert predictions.tolist() == [1]


@pytest.mark.parametrize("k", [0, 3])
def test_k_must_fit_the_support(k):
    with pytest.raises(ValueError, match=f"k is {k}.*2 points"):
        knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), k)


def test_an_unknown_distance_is_named():
    with pytest.raises(ValueError, match="'manhattan', expected cosine or euclidean"):
        knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), 1, "manhattan")


def test_no_queries_have_no_predictions_and_poll_is_called_for_each_chunk():
    calls = []
    assert len(knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.empty(0, 2), 1)) == 0
    knn_predict(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), 1, chunk=1, poll=lambda: calls.append(1))
    assert len(calls) == 2
