"""The projected-gradient attack against its pixel-by-pixel oracle, and what it must leave alone."""

import copy

import numpy as np
import pytest
import torch
from oracles.network import TorchNetwork, track, weights
from oracles.pgd import attack as oracle
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine import recipe
from engine.attacks import pgd
from engine.attacks.pgd import PGD, misclassified
from engine.attacks.training import training_attack
from engine.methods.at import At
from engine.methods.lbgat import Lbgat
from engine.methods.standard import Standard
from engine.methods.trades import Trades
from engine.models.output import Output
from engine.precision import exactly, rounds

B = 5


class TorchHead(nn.Linear):
    """A last layer that gives an Output."""

    def forward(self, x):
        return Output(x, super().forward(x).float())


def images(seed=0):
    """[5, 1, 2, 3] in [0, 1], some pixels at the very ends."""
    x = torch.rand(B, 1, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x[0, 0, 0, 0], x[1, 0, 1, 2] = 0.0, 1.0
    return x, torch.tensor([0, 1, 2, 3, 0])


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def drawn_start(x, start, radius, clip):
    """The start that the attack draws from seeded()."""
    if start == "gaussian":
        first = x + 0.001 * torch.randn(x.shape, generator=seeded(), dtype=x.dtype)
    elif start == "uniform":
        radius = torch.as_tensor(radius, dtype=x.dtype).reshape(-1, 1, 1, 1)
        first = x + radius * (2 * torch.rand(x.shape, generator=seeded(), dtype=x.dtype) - 1)
    else:
        first = x.clone()
    return (first.clamp(0, 1) if clip else first).numpy()


@pytest.mark.parametrize("batchnorm", ["eval", "train"])
@pytest.mark.parametrize(
    ("loss", "start", "clip"),
    [
        ("ce", "none", False),
        ("ce", "gaussian", True),
        ("kl", "gaussian", False),
        ("kl", "uniform", True),
        ("margin", "uniform", False),
    ],
)
def test_it_makes_the_images_of_the_formula(loss, start, clip, batchnorm):
    network, (x, y) = TorchNetwork(3), images()
    w = weights(network)
    attack = PGD(0.1, 0.03, 5, loss=loss, start=start, clip_start=clip, batchnorm=batchnorm)
    found = attack(network, x, y, seeded())
    first = drawn_start(x, start, 0.1, clip)
    expected, taken, correct = oracle(
        w, x.numpy(), y.tolist(), first, [0.1] * B, [0.03] * B, [5] * B, loss, batchnorm == "train"
    )
    assert np.abs(found.images.numpy() - expected).max() < 1e-6
    assert found.steps_taken.tolist() == taken
    assert found.steps_correct.tolist() == correct
    assert (found.images - x).abs().max() > 0.05
    assert not found.images.requires_grad


def test_every_sample_has_its_own_radius_step_and_number_of_steps():
    network, (x, _) = TorchNetwork(3), images()
    y = network.eval()(x).logits.argmax(1)  # correct at first, so that steps from correct iterates are told apart
    eps, size, steps = [0.02, 0.05, 0.1, 0.2, 0.3], [0.01, 0.02, 0.03, 0.04, 0.05], [0, 1, 2, 5, 7]
    attack = PGD(torch.tensor(eps), torch.tensor(size), torch.tensor(steps), start="uniform", start_eps=0.04)
    found = attack(network, x, y, seeded())
    eps, size = (torch.tensor(values).double().tolist() for values in (eps, size))
    first = drawn_start(x, "uniform", [0.04] * B, False)
    expected, taken, correct = oracle(weights(network), x.numpy(), y.tolist(), first, eps, size, steps)
    assert np.abs(found.images.numpy() - expected).max() < 1e-6
    assert found.steps_taken.tolist() == taken == steps
    assert found.steps_correct.tolist() == correct
    assert correct[0] == 0 < correct[1]
    assert found.images.dtype == torch.float64


def test_without_start_eps_the_uniform_start_fills_each_samples_own_ball():
    network, (x, y) = TorchNetwork(3), images()
    eps = torch.tensor([0.01, 0.02, 0.03, 0.04, 0.4], dtype=torch.float64)
    found = PGD(eps, 0.0, 0, start="uniform")(network, x, y, seeded())
    expected = drawn_start(x, "uniform", eps, True)
    assert np.array_equal(found.images.numpy(), expected)


def test_misclassified_samples_stay_as_they_are():
    network, (x, _) = TorchNetwork(3), images()
    y = network.eval()(x).logits.argmax(1)
    y[2] = (y[2] + 1) % 4  # wrong from the start
    attack = PGD(0.3, 0.05, 6, start="none", stop=misclassified)
    found = attack(network, x, y, seeded())
    expected, taken, correct = oracle(
        weights(network), x.numpy(), y.tolist(), x.numpy(), [0.3] * B, [0.05] * B, [6] * B, until_wrong=True
    )
    assert np.abs(found.images.numpy() - expected).max() < 1e-6
    assert found.steps_taken.tolist() == taken == correct == found.steps_correct.tolist()
    assert taken[2] == 0
    assert torch.equal(found.images[2], x[2])
    assert len(set(taken)) > 2, "the case should hold samples that stop at different steps"


def test_when_nobody_moves_any_more_the_attack_ends():
    network, (x, _) = TorchNetwork(3), images()
    wrong = (network.eval()(x).logits.argmax(1) + 1) % 4
    network.calls.clear()
    found = PGD(0.3, 0.05, 50, start="gaussian", stop=misclassified)(network, x, wrong, seeded())
    assert len(network.calls) == 1
    assert found.steps_taken.tolist() == [0] * B
    assert np.array_equal(found.images.numpy(), drawn_start(x, "gaussian", 0, True))


def test_a_rule_with_a_memory_gives_friendly_training_its_tolerance():
    """FAT, and P-SAT's gate, must be a few lines: a rule may remember and may look at probabilities."""

    class Tolerance:
        def __init__(self, units):
            self.left = torch.full((B,), units)

        def __call__(self, logits, y, step):
            wrong = logits.argmax(1) != y
            move = ~wrong | (self.left > 0)
            self.left -= (wrong & move).long()
            return move

    network, (x, y) = TorchNetwork(3), images()
    plain = PGD(0.3, 0.05, 6)(network, x, y, seeded())
    tolerant = PGD(0.3, 0.05, 6, stop=Tolerance(6))(network, x, y, seeded())
    strict = PGD(0.3, 0.05, 6, stop=Tolerance(0))(network, x, y, seeded())
    one = PGD(0.3, 0.05, 6, stop=Tolerance(1))(network, x, y, seeded())
    assert torch.equal(tolerant.images, plain.images)
    assert torch.equal(strict.images, PGD(0.3, 0.05, 6, stop=misclassified)(network, x, y, seeded()).images)
    assert torch.equal(one.steps_taken, (strict.steps_taken + 1).clamp(max=6))


def test_step_noise_is_drawn_inside_the_projection():
    network, (x, y) = TorchNetwork(3), images()
    found = PGD(0.05, 0.02, 3, start="none", noise=0.03)(network, x, y, seeded())
    source = seeded()
    noises = [0.03 * torch.randn(x.shape, generator=source, dtype=x.dtype).numpy() for _ in range(3)]
    expected, _, _ = oracle(
        weights(network), x.numpy(), y.tolist(), x.numpy(), [0.05] * B, [0.02] * B, [3] * B, noises=noises
    )
    assert np.abs(found.images.numpy() - expected).max() < 1e-6
    assert (found.images - x).abs().max() <= 0.05 + 1e-12


@pytest.mark.parametrize("start", ["gaussian", "uniform"])
def test_the_result_is_clipped_even_after_no_step(start):
    network, (x, y) = TorchNetwork(3), images()
    found = PGD(0.3, 0.1, 0, start=start)(network, x, y, seeded())
    unclipped = drawn_start(x, start, 0.3, False)
    assert unclipped.min() < 0 or unclipped.max() > 1
    assert np.array_equal(found.images.numpy(), np.clip(unclipped, 0, 1))


def test_a_start_is_clipped_before_the_first_gradient_only_if_asked():
    network, (x, y) = TorchNetwork(3), images()
    seen = []
    for clip in (False, True):
        network.calls.clear()
        PGD(0.3, 0.1, 1, start="uniform", clip_start=clip)(network, x, y, seeded())
        seen.append(network.calls[0][1])
    assert seen[0].min() < 0
    assert torch.equal(seen[1], seen[0].clamp(0, 1))


def test_the_kl_target_is_computed_once_and_in_the_attacks_mode():
    network, (x, y) = TorchNetwork(3).train(), images()
    for batchnorm in ("eval", "train"):
        network.calls.clear()
        PGD(0.1, 0.02, 4, loss="kl", batchnorm=batchnorm)(network, x, y, seeded())
        assert [mode for mode, _ in network.calls] == [f"bn-{batchnorm}"] * 5
        assert torch.equal(network.calls[0][1], x)
        assert sum(torch.equal(image, x) for _, image in network.calls) == 1


def test_the_network_is_left_as_it_was():
    network, (x, y) = TorchNetwork(3).train(), images()
    network.last.eval()
    network.first.bias.requires_grad_(False)
    network.last.weight.grad = torch.ones_like(network.last.weight)
    before = copy.deepcopy(network.state_dict())
    modes = {name: module.training for name, module in network.named_modules()}
    PGD(0.1, 0.02, 4)(network, x, y, seeded())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert network.first.weight.grad is None
    assert network.last.weight.grad.eq(1).all()
    assert [p.requires_grad for p in network.parameters()] == [True, False, True, True, True, True]


def test_the_network_is_left_as_it_was_when_the_attack_fails():
    class Failing(TorchNetwork):
        def forward(self, x):
            raise RuntimeError("out of memory")

    network, (x, y) = Failing(3).train(), images()
    with pytest.raises(RuntimeError, match="out of memory"):
        PGD(0.1, 0.02, 4)(network, x, y, seeded())
    assert network.training
    assert network.norm.training


def test_batchnorm_in_train_mode_moves_the_running_statistics_by_every_forward():
    network, (x, y) = TorchNetwork(3).eval(), images()
    w = weights(network)
    PGD(0.1, 0.02, 3, start="gaussian", batchnorm="train")(network, x, y, seeded())
    mean, variance = track(w, [image.numpy() for _, image in network.calls])
    assert int(network.norm.num_batches_tracked) == 3
    assert np.abs(network.norm.running_mean.numpy() - mean).max() < 1e-9
    assert np.abs(network.norm.running_var.numpy() - variance).max() < 1e-9
    assert not network.norm.training


def test_dropout_stays_off_so_that_no_foreign_random_number_is_drawn():
    class WithDropout(TorchNetwork):
        def forward(self, x):
            return super().forward(nn.functional.dropout(x, 0.5, self.training))

    network, (x, y) = WithDropout(3).train(), images()
    state = torch.get_rng_state()
    for batchnorm in ("eval", "train"):
        fresh = copy.deepcopy(network)
        first = PGD(0.1, 0.02, 3, batchnorm=batchnorm, noise=0.01)(fresh, x, y, seeded()).images
        again = PGD(0.1, 0.02, 3, batchnorm=batchnorm, noise=0.01)(copy.deepcopy(network), x, y, seeded()).images
        assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_works_under_no_grad_and_under_autocast():
    network, (x, y) = TorchNetwork(3).float(), images()
    x = x.float()
    exact = PGD(0.1, 0.02, 4)(network, x, y, seeded())
    with torch.no_grad():
        quiet = PGD(0.1, 0.02, 4)(network, x, y, seeded())
    assert torch.equal(quiet.images, exact.images)
    for loss in ("ce", "kl", "margin"):
        with torch.autocast("cpu", torch.bfloat16):
            low = PGD(0.1, 0.02, 4, loss=loss)(network, x, y, seeded())
        assert low.images.dtype == torch.float32
        assert (low.images - x).abs().max() <= 0.1 + 1e-6


@pytest.mark.parametrize("fold", [False, True])
def test_the_first_gradient_of_kl_from_a_near_start_is_no_rounding(fold):
    """bfloat16 cannot tell the two predictions apart; what starts far away, and what climbs a label, needs no care."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), TorchHead(4 * 6 * 6, 3))
    x, y = torch.rand(16, 2, 8, 8), torch.zeros(16, dtype=torch.int64)

    def agreement(**form):
        attack = PGD(0.1, 0.02, 1, fold=fold, **form)
        exact = attack(network, x, y, seeded()).images
        with torch.autocast("cpu", torch.bfloat16):
            return float((attack(network, x, y, seeded()).images == exact).double().mean())

    assert agreement(loss="kl") == 1.0
    assert agreement(loss="kl", start="uniform") < 1.0  # in bfloat16, so some signs differ
    assert agreement(loss="ce") < 1.0


class TF32(TorchDispatchMode):
    """Convolutions as a GPU does them by default: of what they are given they see 10 bits behind the point."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        count = {torch.ops.aten.convolution.default: 2, torch.ops.aten.convolution_backward.default: 3}.get(func, 0)
        if count and torch.backends.cudnn.allow_tf32:
            bits = [tensor.detach().clone().view(torch.int32) for tensor in args[:count]]
            args = [*(((number + (1 << 12)) >> 13 << 13).view(torch.float32) for number in bits), *args[count:]]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fold", [False, True])
def test_nor_is_it_the_rounding_of_tf32(fold, monkeypatch):
    monkeypatch.setattr(pgd, "rounds", lambda device_type: torch.backends.cudnn.allow_tf32)
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), TorchHead(4 * 6 * 6, 3))
    x, y = torch.rand(16, 2, 8, 8), torch.zeros(16, dtype=torch.int64)
    attack = PGD(0.1, 0.02, 1, loss="kl", fold=fold)
    exact = attack(network, x, y, seeded()).images
    with TF32():
        assert torch.equal(attack(network, x, y, seeded()).images, exact)


def test_what_rounds():
    assert (rounds("cpu"), rounds("cuda")) == (False, True)
    with torch.autocast("cpu", torch.bfloat16):
        assert rounds("cpu")
    with exactly("cuda"):
        assert not rounds("cuda")


def test_half_precision_images_become_float32():
    network, (x, y) = TorchNetwork(3).float(), images()
    assert PGD(0.1, 0.02, 1)(network, x.half(), y, seeded()).images.dtype == torch.float32


def test_extreme_logits_keep_the_images_finite():
    network, (x, y) = TorchNetwork(3).float(), images()
    network.last.weight.data *= 1e4
    for loss in ("ce", "kl", "margin"):
        found = PGD(0.1, 0.02, 4, loss=loss)(network, x.float(), y, seeded())
        assert torch.isfinite(found.images).all()


@pytest.mark.parametrize(("field", "value"), [("loss", "kld"), ("start", "normal"), ("batchnorm", "frozen")])
def test_an_unknown_word_is_refused_with_the_known_ones(field, value):
    with pytest.raises(ValueError, match=rf"{field} is '{value}', expected one of"):
        PGD(0.1, 0.02, 4, **{field: value})


def test_the_recipes_auto_is_the_methods_own_form():
    section = recipe.Attack(eps=0.2, step_size=0.05, steps=3)
    assert training_attack(section, Standard()) is None
    assert training_attack(section, At()) == PGD(0.2, 0.05, 3, "ce", "gaussian")
    assert training_attack(section, Trades()) == PGD(0.2, 0.05, 3, "kl", "gaussian")
    for base in ("at", "trades"):
        assert training_attack(section, Lbgat(base=base)).loss == "kl"
    assert training_attack(section, Lbgat(base="at", form="paper")).loss == "ce"
    assert training_attack(section, Lbgat(base="trades", form="paper")).loss == "kl"


def test_the_recipes_own_words_win():
    section = recipe.Attack(loss="margin", start="uniform", batchnorm="train")
    assert training_attack(section, Trades()) == PGD(
        0.031, 0.007, 10, "margin", "uniform", clip_start=True, batchnorm="train"
    )
    assert training_attack(recipe.Attack(start="none"), At()).start == "none"
