"""LAS in recipes: its options, and the settings of the shipped ones."""

import pytest
from stepping import refused

from engine import recipe
from engine.methods.las import Las
from engine.options import catalog, load_class
from trainctl.recipes.load import resolve


def test_the_recipe_holds_the_options_to_their_bounds():
    counts = ["eps_lowest", "eps_options", "steps_lowest", "steps_options", "step_size_lowest", "step_size_options"]
    wrong = dict.fromkeys([*counts, "beta_options", "every", "restarts", "strategy_width"], 0)
    below = ["beta_lowest", "robust_reward", "natural_reward", "strategy_lr", "strategy_weight_decay", "gamma"]
    wrong |= dict.fromkeys(below, -1) | {"base": "alp", "label": 1.5, "strategy_momentum": 1.0}
    assert refused(name="las", **wrong) == sorted(f"method.{key}" for key in wrong)
    assert load_class(catalog("Method")["las"]) is Las
    assert set(catalog("Method")["las"].options) == set(wrong)


SETTINGS = {  # ranges of eps, K, alpha, beta; c2, c3; every; S' momentum
    "cifar10-las-at": ((3, 15), (3, 14), (1, 5), None, (4, 2), 20, 0.0),
    "cifar100-las-at": ((3, 15), (3, 12), (1, 5), None, (4, 2), 20, 0.9),
    "cifar10-las-trades": ((5, 9), (7, 14), (2, 4), (5, 9), (8, 4), 1, 0.9),
    "cifar100-las-trades": ((5, 10), (7, 14), (2, 4), (5, 9), (8, 2), 1, 0.9),
    "cifar10-las-awp": ((7, 15), (8, 16), (2, 5), None, (1, 1), 1, 0.0),
    "cifar100-las-awp": ((7, 15), (8, 15), (2, 5), None, (4, 2), 10, 0.9),
}
SCHEDULES = {"at": (110, [100, 105]), "trades": (100, [76, 91]), "awp": (200, [101, 151])}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_recipes_have_their_authors_settings(name):
    r, base = resolve(name).recipe, name.rsplit("-", 1)[1]
    m = Las(**recipe.own_options(r, "method"))
    eps, steps, size, beta, rewards, every, momentum = SETTINGS[name]
    assert (m.base, m.every, (m.robust_reward, m.natural_reward), m.restarts) == (base, every, rewards, 2)
    assert (m.eps_lowest, m.eps_lowest + m.eps_options - 1) == eps
    assert (m.steps_lowest, m.steps_lowest + m.steps_options - 1) == steps
    assert (m.step_size_lowest, m.step_size_lowest + m.step_size_options - 1) == size
    assert beta is None or (m.beta_lowest, m.beta_lowest + m.beta_options - 1) == beta
    assert (m.strategy_lr, m.strategy_momentum, m.strategy_width) == (1e-4, momentum, 64)
    assert m.strategy_weight_decay == (5e-4 if momentum else 0.0)
    assert (m.label, m.gamma) == (0.6 if name == "cifar100-las-at" else 0.7, 0.01)
    assert (r.attack.eps, r.attack.step_size, r.attack.steps, r.attack.batchnorm) == (8 / 255, 2 / 255, 10, "eval")
    assert (r.schedule.epochs, r.schedule.milestones, r.schedule.gamma) == (*SCHEDULES[base], 0.1)
    assert (r.optim.lr, r.optim.weight_decay, r.optim.batch_size) == (0.1, 5e-4, 128)
    assert (r.model.arch, r.eval.protocol, r.eval.select) == ("wrn-34-10", "las", "test")
    assert r.eval.best_by == ("pgd20" if base == "awp" else "pgd10")
    normalised = name == "cifar10-las-awp"
    assert (len(r.model.mean), r.data.padding) == ((3, "reflect") if normalised else (0, "zeros"))


def test_what_is_inferred_is_called_our_reading():
    tiny = resolve("tiny-imagenet-las-at").recipe
    assert tiny.method.label == 0.8 and tiny.our_reading and "our reading" in tiny.title
