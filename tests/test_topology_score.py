import json
import math
from collections import defaultdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny_splits, trained

from engine.evaluate import report
from engine.evaluate.run import evaluate_checkpoint
from engine.evaluate.topology_score import knn_predict, knn_predict_each
from engine.recipe import check
from engine.rundir import RunDir


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


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 12))
def test_of_equally_far_points_the_earlier_are_nearer(seed, size):
    draw = torch.Generator().manual_seed(seed)
    support = torch.randint(-3, 4, (size, 1), generator=draw).double()  # many at equal distances
    labels = torch.randint(3, (size,), generator=draw)
    queries = torch.randint(-3, 4, (5, 1), generator=draw).double()
    ks = range(1, size + 1)
    found = knn_predict_each(support, labels, queries, ks, "euclidean")
    for number, query in enumerate(queries[:, 0].tolist()):
        order = sorted(range(size), key=lambda i: (abs(support[i, 0].item() - query), i))
        for k in ks:
            near = order[:k]
            votes = {c: sum(labels[i] == c for i in near) for c in labels.tolist()}
            sums = {c: sum(abs(support[i, 0].item() - query) for i in near if labels[i] == c) for c in votes}
            assert found[k][number] == min(votes, key=lambda c: (-votes[c], sums[c], c))


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("tied", [False, True])
def test_many_k_at_once_are_each_of_them_alone(distance, tied):
    draw = torch.Generator().manual_seed(3)
    support, queries = torch.randn(60, 4, generator=draw), torch.randn(40, 4, generator=draw)
    if tied:  # every point stands there four times, with labels of its own
        support = support[:15].repeat(4, 1)
    labels = torch.randint(5, (60,), generator=draw)
    ks = (5, 10, 20, 30, 40, 50)
    together = knn_predict_each(support, labels, queries, ks, distance, chunk=16)
    alone = {k: knn_predict(support, labels, queries, k, distance) for k in ks}
    assert all(torch.equal(together[k], alone[k]) for k in ks)
    assert len({tuple(predictions.tolist()) for predictions in together.values()}) > 1


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


def test_the_score_is_recorded_for_every_k_that_there_are_points_for(tmp_path):
    splits, rundir = tiny_splits(train=22, test=30), RunDir(tmp_path)
    network, found = trained(splits), {}

    def evaluate(k):
        recipe = check({"eval": {"attacks": [], "eps": 0.1, "topology_k": k}})
        evaluate_checkpoint(
            recipe=recipe, splits=splits, network=network, standard=None, rundir=rundir, device=torch.device("cpu"),
            checkpoint={"name": "best", "epoch": 1, "rule": "r"}, should_stop=lambda: False,
            emit=lambda event, **fields: found.update({(fields["metric"], k): fields}),
        )  # fmt: skip

    for k in (1, 5, 10, 20, 30, 40):  # of 22 training images and their adversarial ones
        evaluate(k)
    for metric in ("topo_natural", "topo_robust"):
        alone = {str(k): found[metric, k]["value"] for k in (5, 10, 20, 30, 40)}
        assert all(found[metric, k]["by_k"] == alone for k in (1, 5, 40))
        assert len(set(alone.values())) > 1

    stored = report.path(rundir, "best", "topo_natural", "json")
    old = json.loads(stored.read_text())
    del old["settings"]["ks"], old["result"]["by_k"]  # as it was before
    stored.write_text(json.dumps(old))
    evaluate(40)
    assert "by_k" in json.loads(stored.read_text())["result"]
