"""Every method, with TRAIN and without, and every term: a few steps of a real run, stopped and resumed bit for bit."""

import json
import re
from pathlib import Path

import pytest
import torch
from conftest import carry_out

from engine import checkpoint, events, options
from engine import train as train_module
from engine.recipe import InvalidRecipe, check

SHORT = {
    "data__train_examples": 60, "optim__batch_size": 16, "attack__steps": 2, "run__log_every": 1,
    "eval__attacks": [], "eval__topology": False, "eval__checkpoints": ["last"], "eval__examples": 20,
}  # fmt: skip
FORMS = {
    "awp": [{"base": "at"}, {"base": "trades", "warmup": 1}],
    "ecas": [{"base": "at"}, {"base": "trades"}, {"base": "awp"}],
    "fat": [{"base": "at"}, {"base": "trades"}, {"base": "mart"}],
    "gairat": [{"begin_epoch": 1}],
    "las": [
        {"base": base, "strategy_width": 4, "every": every, "strategy_momentum": 0.9}
        for base, every in (("at", 2), ("trades", 1), ("awp", 1))
    ],
    "lbgat": [{"base": "at"}, {"base": "alp"}, {"base": "trades"}, {"base": "trades", "form": "paper"}],
    "trades": [{}, {"forwards": "official"}],
}
CASES = [
    ({"name": name, **form}, {}) for name in options.catalog("Method") for form in FORMS.get(name, [{}])
]  # fmt: skip
CASES += [({"name": "at"}, {name: {"negatives": 16} if name != "rkd" else {}}) for name in options.catalog("Term")]


def train(folder, until=None):
    """Carry out the run in `folder`, or stop it after `until` steps; returns its checkpoint and its events."""
    carry_out(folder, until)
    log = [event for _, event in events.read(folder.events.read_bytes())]
    return checkpoint.load(folder.checkpoint("last"))[0], [
        {key: value for key, value in event.items() if key not in events.TIMES} for event in log
    ]


@pytest.mark.parametrize("enabled", [False, True], ids=["baseline", "train"])
@pytest.mark.parametrize(("method", "terms"), CASES, ids=lambda part: "-".join(map(str, part.values() or part)) or "")
def test_a_stopped_run_goes_on_as_if_nothing_had_been(make_folder, method, terms, enabled):
    if enabled and method["name"] == "standard":
        pytest.skip("makes no adversarial images, so there is no +TRAIN of it")
    settings = {**SHORT, "topology__enabled": enabled, **{f"method__{key}": value for key, value in method.items()}}
    if terms:
        settings |= {f"terms__{name}": part for name, part in terms.items()}
    whole, told = train(make_folder("whole", **settings))
    folder = make_folder("stopped", **settings)
    train(folder, until=3)  # in the middle of the first of two epochs of four steps
    resumed, said = train(folder)
    assert whole.keys() == resumed.keys()
    assert [name for name, tensor in whole.items() if not torch.equal(tensor, resumed[name])] == []
    assert said == told
    assert sum(event["event"] == "step" for event in said) == 8
    losses = [event["loss"] for event in said if event["event"] == "step"]
    assert len(set(losses)) == len(losses), json.dumps(losses)  # it does learn


def test_a_frozen_m_stays_as_its_own_training_left_it(make_folder):
    """TRAIN*: once M has had its two epochs of four steps, neither its weights nor its running statistics move."""
    folder = make_folder(**SHORT, topology__enabled=True, topology__variant="star")
    alone, _ = train(folder, until=8)
    whole, told = train(folder)
    moved = {name for name, tensor in alone.items() if name in whole and not torch.equal(tensor, whole[name])}
    means = [tensor for name, tensor in alone.items() if name.startswith("standard.") and "running_mean" in name]
    assert means and all(tensor.any() for tensor in means)  # it was in train mode then
    assert moved and {name.partition(".")[0] for name in moved} == {"model"}
    assert [set(event) & {"loss_standard", "l_tp"} for event in told if event["event"] == "step"] == (
        [{"loss_standard"}] * 8 + [{"l_tp"}] * 8
    )


def refused(**settings):
    """The keys and messages of what a recipe's check refuses."""
    with pytest.raises(InvalidRecipe) as caught:
        check({key: dict(value) for key, value in settings.items()})
    return {problem.key: f"{problem.message} {problem.hint}" for problem in caught.value.problems}


@pytest.mark.parametrize(
    "method", [name for name, entry in options.catalog("Method").items() if "beta" in entry.options]
)
def test_a_negative_beta_is_refused_by_name(method):
    assert list(refused(method={"name": method, "beta": -1.0})) == ["method.beta"]


def test_fewer_than_three_samples_for_l_tp_are_refused_by_name():
    found = refused(optim={"batch_size": 2}, topology={"enabled": True})
    assert list(found) == ["optim.batch_size"]
    assert "3 or more" in found["optim.batch_size"]


@pytest.mark.parametrize("key", ["topology", "terms"])
def test_an_unknown_source_of_x_prime_is_refused_by_name(key):
    part = {"source": "adverserial"}
    found = refused(**({"topology": part} if key == "topology" else {"terms": {"rkd": part}}))
    (name,) = found
    assert name == ("topology.source" if key == "topology" else "terms.rkd.source")
    assert "did you mean 'adversarial'?" in found[name]


def test_a_misspelt_option_of_a_term_is_told_the_nearest():
    found = refused(terms={"rkd": {"wieght": 1.0}})
    assert list(found) == ["terms.rkd.wieght"] and "did you mean 'weight'?" in found["terms.rkd.wieght"]


def test_terms_and_l_tp_are_refused_where_there_is_no_x_prime():
    found = refused(method={"name": "standard"}, topology={"enabled": True}, terms={"mca": {}})
    assert set(found) == {"topology.enabled", "terms.mca"}


def test_the_training_loop_names_no_method():
    source = Path(train_module.__file__).read_text()
    names = {name for kind in ("Method", "Term") for name in options.catalog(kind)}
    names -= {"at", "standard"}  # a preposition, and the network M
    assert len(names) > 10 and not names & set(re.findall(r"[a-z]+", source.lower()))
    assert set(re.findall(r"engine\.(?:methods|regularizers)\.(\w+)", source)) == {"base"}
