"""Settings that are each fine and cannot run together are refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest

from engine.recipe import InvalidRecipe, check

IMPOSSIBLE: list[tuple[dict[str, Any], str, str]] = [
    ({"data": {"dataset": "npz"}}, "data.path", "data set 'npz' lies nowhere yet"),
    ({"data": {"dataset": "folder", "path": ""}}, "data.path", "data set 'folder' lies nowhere yet"),
    ({"method": {"name": "standard"}, "topology": {"enabled": True}}, "topology.enabled", "no adversarial images"),
    ({"optim": {"batch_size": 2}, "topology": {"enabled": True}}, "optim.batch_size", "3 or more"),
    ({"data": {"validation": 0.0}}, "data.validation", "nothing to choose"),
    ({"optim": {"nesterov": True, "momentum": 0.0}}, "optim.nesterov", "momentum above 0"),
    ({"model": {"arch": "mobilenetv3-large", "width": 8}}, "model.width", "fixed"),
    ({"model": {"mean": [0.5], "std": [0.0]}}, "model.std", "above 0"),
    ({"standard": {"mean": [0.5]}}, "standard.std", "0 values"),
    ({"run": {"device": "foo"}}, "run.device", "foo"),
    ({"standard": {"weights": "x"}, "topology": {"enabled": True}}, "standard.weights", "star"),
    ({"attack": {"eps": -0.1}}, "attack.eps", "greater than 0"),
    ({"model": {"arch": "wrn-33-2"}}, "model.arch", "depth"),
    ({"method": {"name": "trades", "beta": -1.0}}, "method.beta", "greater than or equal to 0"),
    ({"schedule": {"milestones": [5, 9], "factors": [0.1]}}, "schedule.factors", "1 factors for 2"),
    ({"method": {"name": "tardes"}}, "method.name", "no method 'tardes'"),
]


@pytest.mark.parametrize(("table", "key", "message"), IMPOSSIBLE, ids=[key for _, key, _ in IMPOSSIBLE])
def test_it_is_refused_by_name(table: dict[str, Any], key: str, message: str) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        check(table)
    assert [problem.key for problem in caught.value.problems] == [key]
    assert message in caught.value.problems[0].message


def test_the_defaults_are_a_recipe() -> None:
    assert check({}).method.name == "trades"


def test_a_pair_may_name_weights_for_the_frozen_network() -> None:
    table = {"standard": {"weights": "m.safetensors"}, "topology": {"variant": "star"}}
    assert not check(table).topology.enabled


def test_the_rate_follows_milestones_and_their_own_factors() -> None:
    from engine.networks import learning_rate

    plain = check({"schedule": {"epochs": 100, "milestones": [75, 90]}, "optim": {"lr": 0.1}})
    found = [learning_rate(plain.optim, plain.schedule, epoch) for epoch in (1, 74, 75, 89, 90, 100)]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    own = check({"schedule": {"milestones": [60, 90, 110], "factors": [0.1, 0.1, 0.5], "first_epoch_lr": 0.02}})
    found = [learning_rate(own.optim, own.schedule, epoch) for epoch in (1, 2, 60, 90, 110)]
    assert found == pytest.approx([0.02, 0.1, 0.01, 0.001, 0.0005])
