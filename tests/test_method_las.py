"""LAS: x' by sampled actions, the reward, when S learns, the three forms' losses, and what M' notices of it."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from oracles import las as oracle
from oracles import methods as losses
from oracles import pgd
from oracles.ecas import smoothed
from oracles.network import TorchNetwork, forward, weights
from stepping import (
    assert_formula,
    assert_forwards,
    position,
    predicted,
    step_on,
    stepped,
    tiny_batch,
    total,
)
from tiny import TinyNet

from engine import recipe
from engine.attacks.training import training_attack
from engine.methods.base import Order
from engine.methods.las import Chosen, Las, accuracy, aside
from engine.models.strategy import Strategy, sample
from engine.step import Batch
from engine.task import Task

BASES = ["at", "trades", "awp"]
PARTS = {"at": ["ce"], "trades": ["ce", "kl"], "awp": ["ce"]}
FORWARDS = {"at": ["x'"], "trades": ["x", "x'"], "awp": ["x'"]}
EPS, STEP, STEPS = 0.2, 0.08, 3
# Actions of five images: radii of 3-7 eighths, 1-3 steps of 2-4 eighths, betas of 5-9.
ACTIONS = [[0, 4, 2, 1, 3], [2, 0, 1, 2, 1], [0, 2, 1, 1, 0], [4, 0, 1, 3, 2]]
BETAS = [9.0, 5.0, 6.0, 8.0, 7.0]
RANGES = {"steps_lowest": 1, "steps_options": 3, "step_size_lowest": 2, "step_size_options": 3, "eps_options": 5}


def las(base, size=(2, 3), seed=1, schedule=None, **options):
    """LAS with a narrow S in float64, for the tiny network."""
    optim = {"lr": 0.2, "weight_decay": 0.05}
    table = {"method": {"name": "las"}, "run": {"seed": seed}, "optim": optim, "schedule": schedule or {}}
    task = Task(recipe.check(table), 4, (1, *size), torch.zeros(9).long(), 5, 0, torch.device("cpu"))
    method = Las(base=base, strategy_width=2, **{**RANGES, "label": 0.6, "gamma": 0.05, **options}).prepared(task)
    method.memory.double()
    return method


def climber(method, **settings):
    return training_attack(recipe.Attack(**{"eps": EPS, "step_size": STEP, "steps": STEPS, **settings}), method)


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def starts(batch, generator, base="at"):
    """Where an attack of radius EPS starts, from the numbers that `generator` gives next."""
    if base == "trades":
        noise = torch.randn(batch.x.shape, generator=generator, dtype=torch.float64)
        return (batch.x + 0.001 * noise).numpy()
    noise = 2 * torch.rand(batch.x.shape, generator=generator, dtype=torch.float64) - 1
    return np.clip((batch.x + EPS * noise).numpy(), 0, 1)


def by_actions(method, network, batch):
    """x' made with ACTIONS."""
    count = 4 if method.base == "trades" else 3
    return method.attacked(network, batch, climber(method), [torch.tensor(a) for a in ACTIONS[:count]], source())


def bits(network):
    return {name: value.detach().numpy().tobytes() for name, value in network.state_dict().items()}


# ---- S


def test_s_has_a_head_for_each_decision_and_starts_from_the_seed_alone():
    assert las("at").memory.choices == las("awp").memory.choices == [5, 3, 3]
    assert las("trades").memory.choices == [5, 3, 3, 5]
    assert [tuple(logits.shape) for logits in las("trades").memory(tiny_batch().x)] == [(5, 5), (5, 3), (5, 3), (5, 5)]
    torch.manual_seed(0)
    first, state = las("at"), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert bits(first.memory) == bits(las("at").memory) != bits(las("at", seed=2).memory)
    torch.manual_seed(0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert las("at") == Las(strategy_width=2, label=0.6, gamma=0.05, **RANGES)  # equal settings are equal methods


def test_the_rate_of_s_falls_with_that_of_m_prime():
    schedule = {"epochs": 20, "milestones": [3, 5], "gamma": 0.1}
    rates = {}
    for base in BASES:
        method = las(base, schedule=schedule, every=4, strategy_lr=0.02)
        rates[base] = [round(method.strategy_rate(position(epoch, 20)), 8) for epoch in (1, 2, 3, 4, 5, 9, 17)]
    in_steps = [0.02, 0.02, 0.002, 0.002, 0.0002, 0.0002, 0.0002]
    # With AT update u is counted as step u: its epoch is (3 (epoch - 1) // 4) // 3 + 1.
    assert rates == {"at": [0.02, 0.02, 0.02, 0.02, 0.02, 0.002, 0.0002], "trades": in_steps, "awp": in_steps}


def test_s_descends_its_loss_at_that_rate(monkeypatch):
    seen = []
    monkeypatch.setattr(Strategy, "descend", lambda strategy, *arguments: seen.append(arguments))
    monkeypatch.setattr(Las, "reward", lambda *arguments: torch.tensor(2.5, dtype=torch.float64))
    settings = {"strategy_lr": 0.5, "strategy_momentum": 0.8, "strategy_weight_decay": 0.01}
    method, batch, generator = (
        las("trades", schedule={"milestones": [2], "gamma": 0.1}, **settings),
        tiny_batch(),
        source(),
    )
    method.teach(TorchNetwork(1).train(), batch, climber(method), position(2), generator)
    ((loss, *rest),) = seen
    assert rest == pytest.approx([0.05, 0.8, 0.01])
    logits, again = [decision.detach().numpy() for decision in method.memory.train()(batch.x)], source()
    torch.randint(2**62, (), generator=again)  # of the dropout
    waiting = [torch.empty(5, n, dtype=torch.float64).exponential_(generator=again).numpy() for n in (5, 3, 3, 5)]
    actions = [oracle.choose(one, times) for one, times in zip(logits, waiting, strict=True)]
    assert loss.item() == pytest.approx(oracle.strategy_loss(logits, actions, 2.5), abs=1e-9)


# ---- x'


@pytest.mark.parametrize("base", BASES)
def test_each_image_is_attacked_as_its_actions_say(base):
    method, network, batch = las(base), TorchNetwork(1).train(), tiny_batch()
    found = by_actions(method, network, batch)
    eps, size = [EPS * (3 + a) / 8 for a in ACTIONS[0]], [EPS * (2 + a) / 8 for a in ACTIONS[2]]
    steps, x, y = [1 + a for a in ACTIONS[1]], batch.x.numpy(), batch.y.tolist()
    climbs = "kl" if base == "trades" else "ce"
    images, _, correct = pgd.attack(weights(network), x, y, starts(batch, source(), base), eps, size, steps, climbs)
    assert np.abs(found.images.numpy() - images).max() < 1e-9
    assert found.steps_correct.tolist() == correct
    if base == "trades":
        assert isinstance(found, Chosen) and found.beta.tolist() == BETAS


def test_a_uniform_start_lies_within_attack_eps_whatever_the_radius():
    method, network = las("at"), TorchNetwork(1)
    middle = replace(tiny_batch(), x=torch.full((5, 1, 2, 3), 0.5, dtype=torch.float64))
    method.attacked(network, middle, climber(method), [torch.zeros(5).long()] * 3, source())
    assert 3 / 8 * EPS < (network.calls[0][1] - middle.x).abs().max().item() <= EPS


@pytest.mark.parametrize("base", BASES)
def test_between_its_updates_s_samples_in_eval_mode_and_does_not_change(base):
    method, network, batch = las(base, every=2, eps_lowest=12), TorchNetwork(1).train(), tiny_batch()
    before, generator = bits(method.memory), source()
    logits = [decision.detach().numpy() for decision in method.memory.eval()(batch.x)]
    method.memory.train()
    found = method.perturb(network, batch, climber(method), position(1, batch=1), source())
    actions = []
    for decision in logits:
        waiting = torch.empty(decision.shape, dtype=torch.float64).exponential_(generator=generator)
        actions.append(torch.tensor(oracle.choose(decision, waiting.numpy())))
    expected = method.attacked(network, batch, climber(method), actions, generator)
    images, x = expected.images, batch.x
    if base == "awp":  # M' trains on x' clipped back to attack.eps
        assert (images - x).abs().max() > EPS + 0.01
        images = torch.minimum(torch.maximum(images, x - EPS), x + EPS)
    assert torch.equal(found.images, images)
    assert bits(method.memory) == before


@pytest.mark.parametrize("base", BASES)
def test_where_it_is_due_s_learns_first_and_then_samples_again(base):
    method, network, batch = las(base, every=2, strategy_lr=0.5), TorchNetwork(1).train(), tiny_batch()
    strategy, twin = method.memory, copy.deepcopy(method)
    method.perturb(network, batch, climber(method), position(2, batch=0), source())
    assert bits(strategy) == bits(twin.memory)  # the fourth step of the whole run: the third and the fifth are due
    other = copy.deepcopy(network)
    found = method.perturb(network, batch, climber(method), position(2, batch=1), source())
    generator = source()
    twin.teach(other, batch, climber(method), position(2, batch=1), generator)
    assert bits(strategy) == bits(twin.memory) and not strategy.training
    assert strategy.state_dict()["network.bn1.num_batches_tracked"] == 1  # train mode for the first sample alone
    actions = sample(twin.memory.eval()(batch.x), generator)
    images = twin.attacked(other, batch, climber(method), actions, generator).images
    clipped = images.clamp(batch.x - EPS, batch.x + EPS) if base == "awp" else images
    assert torch.equal(found.images, clipped)


# ---- the reward


@pytest.mark.parametrize("base", BASES)
def test_the_reward_is_the_formula(base):
    method, network = las(base, schedule={"milestones": [2], "gamma": 0.5}), TorchNetwork(1).train()
    x = tiny_batch().x
    x[4] = x[4].round()  # so that a start is clipped to the pixel range
    batch = predicted(network, replace(tiny_batch(), x=x))
    perturbed = by_actions(method, network, batch)
    w, x, images, y = weights(network), batch.x.numpy(), perturbed.images.numpy(), batch.y.tolist()
    beta = BETAS if base == "trades" else None

    hardness = oracle.hardness(w, x, images, y, base, beta)
    assert method.hardness(copy.deepcopy(network), perturbed).item() == pytest.approx(hardness, abs=1e-9)

    after = copy.deepcopy(network)
    method.hardness(after, perturbed)  # moves the statistics for TRADES, which the copy then starts from
    expected = oracle.updated(weights(after), x, images, y, base, beta, 0.6, 0.05, 0.1, 0.05)
    student = method.updated(after, perturbed, position(2))
    for name, value in weights(student).items():
        assert np.abs(value - expected[name]).max() < 1e-9, name
        assert name.startswith("norm.running") or np.abs(value - w[name]).max() > 1e-4

    generator, attack = source(7), climber(method)
    begin = [starts(batch, generator) for _ in range(2)]
    strongest, expected = oracle.strongest(expected, x, y, begin, EPS, STEP, STEPS, base != "awp")
    found = method.strongest(student, batch, attack, source(7))
    assert np.abs(found.numpy() - strongest).max() < 1e-9
    for name, value in weights(student).items():
        assert np.abs(value - expected[name]).max() < 1e-9, name

    robust, natural = oracle.accuracy(expected, strongest, y), oracle.accuracy(expected, x, y)
    assert 0 < robust < natural
    assert accuracy(student, found, batch.y).item() == pytest.approx(robust)
    reward = method.reward(network, perturbed, attack, position(2), source(7))
    assert reward.item() == pytest.approx(hardness + 4 * robust + 2 * natural, abs=1e-6) and not reward.requires_grad


@pytest.mark.parametrize("base", BASES)
def test_the_hardness_is_cut(base):
    method, network, batch = las(base), TorchNetwork(1).train(), tiny_batch()
    network.last.weight.data *= 1000
    assert method.hardness(network, by_actions(method, network, batch)).item() == (20 if base == "trades" else 10)


def test_of_the_restarts_the_one_with_the_highest_loss_counts_and_on_a_tie_the_later_one():
    method, network, batch, generator = las("awp", restarts=6), TorchNetwork(1), tiny_batch(), source(3)
    single = replace(method, restarts=1)
    tried = [single.strongest(copy.deepcopy(network), batch, climber(method), generator) for _ in range(6)]
    found = method.strongest(copy.deepcopy(network), batch, climber(method), source(3))
    rows = [forward(weights(network), images.numpy(), True)[1] for images in tried]
    hardest = [int(np.argmax([-losses.log_softmax(row[b])[batch.y[b]] for row in rows])) for b in range(5)]
    assert len({*hardest, 5}) > 2
    assert all(torch.equal(found[b], tried[hardest[b]][b]) for b in range(5))
    network.last.weight.data.zero_()  # every image has the same loss
    generator = source(3)
    *_, last = (single.strongest(network, batch, climber(method), generator) for _ in range(6))
    assert torch.equal(method.strongest(network, batch, climber(method), source(3)), last)


@pytest.mark.parametrize("base", BASES)
def test_m_prime_is_left_as_it_was(base):
    method, network, batch = las(base, every=1), TorchNetwork(1).train(), tiny_batch()
    kept = torch.ones_like(network.first.weight)
    network.first.weight.grad = kept
    before = bits(network)
    method.perturb(network, batch, climber(method), position(), source())
    after = bits(network)
    if base == "trades":  # but for the statistics that x and the first x' move
        seen = [images for call, images in network.calls if call == "bn-train"]
        assert torch.equal(seen[0], batch.x) and not torch.equal(seen[1], batch.x)
        assert len(seen) == int(network.norm.num_batches_tracked) == 2
        for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
            assert before.pop(name) != after.pop(name)
    assert after == before
    assert network.first.weight.grad is kept and torch.equal(kept, torch.ones_like(kept))
    assert all(p.grad is None for name, p in network.named_parameters() if name != "first.weight")
    assert network.training and all(p.requires_grad and p.is_leaf for p in network.parameters())


def test_dropout_follows_the_generator_and_autocast_keeps_no_old_weights():
    batch = Batch(torch.rand(8, 1, 6, 6, generator=source()), torch.arange(8), torch.arange(8))
    found = []
    for seed in (0, 1):
        method = las("at", size=(6, 6), every=1, strategy_lr=0.9, robust_reward=9.0)
        method.memory.float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            network = TinyNet().train()
            torch.manual_seed(seed)
            state = torch.random.get_rng_state()
            with torch.autocast("cpu", torch.bfloat16):
                before = method.memory.eval()(batch.x)[0].detach()
            with torch.autocast("cpu", torch.bfloat16):
                method.perturb(network, batch, climber(method), position(), source())
                inside = method.memory.eval()(batch.x)[0].detach()
            with torch.autocast("cpu", torch.bfloat16):
                assert torch.equal(inside, method.memory(batch.x)[0]) and not torch.equal(inside, before)
            with aside(torch.device("cpu"), source()):
                found.append(torch.nn.functional.dropout(torch.ones(50)).tolist())
            assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0] == found[1]


def test_weights_that_are_no_numbers_reach_the_loss_and_are_reported_there():
    method, network = las("trades", every=1), TorchNetwork(1).train()
    network.last.weight.data.fill_(torch.nan)
    perturbed = method.perturb(network, tiny_batch(), climber(method), position(), source())
    assert total(method, step_on(network, tiny_batch(), perturbed)).isnan()


# ---- M'


@pytest.mark.parametrize("base", BASES)
def test_losses_gradients_and_forwards_are_those_of_the_form(base):
    method = las(base, every=1)
    step, network, before = stepped(method, eps=EPS, step_size=STEP, steps=1)
    assert list(method.losses(step)) == PARTS[base]
    assert_forwards(method, step, network, before, FORWARDS[base])
    x, images, y = step.x.numpy(), step.perturbed.images.numpy(), step.y.tolist()
    beta = step.perturbed.beta.tolist() if base == "trades" else []
    formula = {
        "at": lambda w: smoothed(w, images, y, 0.6),
        "trades": lambda w: oracle.trades(w, x, images, y, beta),
        "awp": lambda w: losses.at(w, images, images, y),
    }
    assert base != "trades" or len(set(beta)) > 1
    assert_formula(method, step, network, before, formula[base])
    assert method.official(climber(method)) == Order(tuple(method.forwards), after=("natural",) * (base == "awp"))


@pytest.mark.parametrize("base", BASES)
def test_only_the_awp_form_moves_the_weights(base):
    method, network = las(base), TorchNetwork(1).train()
    before = weights(network)
    with method.displaced(network, lambda net: net(tiny_batch().x).logits.square().sum(), position()):
        moved = weights(network)
    share = np.linalg.norm(moved["first.weight"] - before["first.weight"]) / np.linalg.norm(before["first.weight"])
    assert share == pytest.approx(0.05 if base == "awp" else 0.0)
    assert all(np.array_equal(value, before[name]) for name, value in weights(network).items())
