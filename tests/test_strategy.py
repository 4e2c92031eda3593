"""The strategy network of LAS: the actions that it samples, its loss, and its own SGD."""

import numpy as np
import pytest
import torch
from oracles import las as oracle
from oracles.network import gradient
from stepping import tiny_batch

from engine.models.strategy import Strategy, sample, strategy_loss


def source(seed):
    return torch.Generator().manual_seed(seed)


def test_an_action_is_the_option_that_comes_first():
    decisions = [torch.randn(6, 4, generator=source(1)).double(), 3 * torch.randn(6, 3, generator=source(2)).double()]
    generator, found = source(5), sample(decisions, source(5))
    for logits, actions in zip(decisions, found, strict=True):
        waiting = torch.empty_like(logits).exponential_(generator=generator)
        assert actions.tolist() == oracle.choose(logits.numpy(), waiting.numpy())
    many = sample([torch.tensor([[0.0, 1.0, -1.0]]).expand(20000, 3)], source(0))[0]
    expected = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    assert np.bincount(many.numpy()) / 20000 == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("reward", [0.0, 3.7])
def test_the_loss_of_s_and_its_gradient_are_those_of_reinforce(reward):
    decisions = [torch.randn(5, n, generator=source(n)).double().requires_grad_() for n in (4, 1, 3)]
    actions = [[0, 3, 1, 2, 2], [0, 0, 0, 0, 0], [2, 1, 0, 0, 1]]
    loss = strategy_loss(decisions, [torch.tensor(a) for a in actions], torch.tensor(reward, dtype=torch.float64))
    plain = [logits.detach().numpy() for logits in decisions]
    assert loss.item() == pytest.approx(oracle.strategy_loss(plain, actions, reward), abs=1e-12)
    for number, logits in enumerate(torch.autograd.grad(loss, decisions)):

        def one(changed, number=number):
            return oracle.strategy_loss([*plain[:number], changed, *plain[number + 1 :]], actions, reward)

        assert np.abs(logits.numpy() - gradient(one, plain[number])).max() < 1e-12


def test_s_learns_by_sgd_with_momentum_decay_and_a_gradient_of_norm_1_at_most():
    strategy, x = Strategy(1, [4, 3], 2).double(), tiny_batch().x
    w, lengths = [p.detach().numpy().copy() for p in strategy.network.parameters()], []
    speeds = [np.zeros_like(value) for value in w]
    for scale in (50.0, 0.01, 1.0):
        loss = scale * sum((logits**2).sum() for logits in strategy.eval()(x))
        slopes = [g.numpy() for g in torch.autograd.grad(loss, strategy.network.parameters(), retain_graph=True)]
        lengths.append(np.sqrt(sum((slope**2).sum() for slope in slopes)))
        w, speeds = oracle.descend(w, speeds, slopes, 0.1, 0.9, 0.02)
        strategy.descend(loss, 0.1, 0.9, 0.02)
        for found, expected in zip(strategy.network.parameters(), w, strict=True):
            assert np.abs(found.detach().numpy() - expected).max() < 1e-12
    assert lengths[0] > 1 > lengths[1]
    held = strategy.state_dict()
    assert all(np.allclose(held[f"momentum.{n}"].numpy(), speed) for n, speed in enumerate(speeds))
    assert all(p.grad is None for p in strategy.parameters())
