"""The network as an attack sees it, with BatchNorm folded, against the network itself."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from engine import machine, recipe
from engine.attacks.pgd import PGD
from engine.models.build import build
from engine.models.fold import folded
from engine.recipe import Model, Run

NETWORKS = {
    "small-cnn": {"arch": "small-cnn", "width": 4},
    "resnet-18": {"arch": "resnet-18", "width": 4},
    "resnet-18-lbgat": {"arch": "resnet-18", "width": 4, "strides": "lbgat"},
    "wrn-16-2": {"arch": "wrn-16-2", "width": 4},
    "wrn-dropout": {"arch": "wrn-10-1", "width": 4, "dropout": 0.3},
    "mobilenetv3": {"arch": "mobilenetv3-large"},
    "normalised": {"arch": "resnet-18", "width": 4, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}
LEFT = {"wrn-16-2": 7, "wrn-dropout": 4}  # BatchNorms before a convolution: one a block, and the last


def made(name):
    """(network in train mode with statistics of its own, images, labels)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = build(Model(**NETWORKS[name]), 3, 16, 5)
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
        x = torch.rand(6, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    return network.train(), x, torch.tensor([0, 1, 2, 3, 4, 0])


def seen(network, x, y):
    """(features, logits, gradient with respect to x) of cross-entropy."""
    x = x.detach().requires_grad_()
    output = network(x)
    (gradient,) = torch.autograd.grad(cross_entropy(output.logits.float(), y, reduction="sum"), x)
    return output.features.detach(), output.logits.detach(), gradient


def norms_that_compute(network):
    """Number of BatchNorms that are not skipped."""
    return sum(isinstance(module, _BatchNorm) and "forward" not in vars(module) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_it_computes_the_same(name):
    network, x, y = made(name)
    network.eval()
    exact = seen(copy.deepcopy(network).double(), x.double(), y)
    with folded(network):
        found = seen(network, x, y)
        assert norms_that_compute(network) == LEFT.get(name, 0)
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 1e-5 * other.norm()
    assert norms_that_compute(network) > LEFT.get(name, 0)


@pytest.mark.parametrize("name", ["resnet-18", "wrn-dropout", "mobilenetv3"])
def test_under_autocast_it_is_as_near_as_the_network_itself(name):
    network, x, y = made(name)
    network.eval()
    exact = seen(network, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        plain = seen(network, x, y)
        with folded(network):
            found = seen(network, x, y)
    for one, other, true in zip(found, plain, exact, strict=True):
        assert one.dtype == torch.float32
        assert 0 < (one - true).norm() < 1.5 * (other - true).norm() + 0.01 * true.norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_an_attack_leaves_the_network_as_it_was_and_outcomes_agree(name):
    network, x, y = made(name)
    next(network.modules()).eval()  # a mode of its own
    first = next(network.parameters())
    first.grad = torch.ones_like(first)
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    images = []
    for fold in (False, True):
        attack = PGD(0.05, 0.02, 4, fold=fold)
        images.append(attack(network, x, y, torch.Generator().manual_seed(0)).images)
    # A sign may fall out otherwise where the gradient is zero but for rounding.
    assert (images[0] - images[1]).abs().gt(1e-6).double().mean() < 0.01
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert first.grad.eq(1).all()
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert not any("forward" in vars(module) for module in network.modules())


def test_batchnorm_in_train_mode_is_not_folded():
    network, x, y = made("resnet-18")
    twin = copy.deepcopy(network)
    with folded(network):
        found = seen(network, x, y)
    assert all(torch.equal(one, other) for one, other in zip(found, seen(twin, x, y), strict=True))
    images = []
    for one, fold in ((network, True), (twin, False)):
        attack = PGD(0.05, 0.02, 2, fold=fold, batchnorm="train")
        images.append(attack(one, x, y, torch.Generator().manual_seed(0)).images)
    assert torch.equal(*images)
    assert all(torch.equal(value, twin.state_dict()[key]) for key, value in network.state_dict().items())


def test_the_network_is_itself_again_after_an_error():
    network, _, _ = made("resnet-18")
    with pytest.raises(RuntimeError, match="memory"), folded(network.eval()):
        raise RuntimeError("out of memory")
    assert not any("forward" in vars(module) for module in network.modules())


def test_a_convolution_with_bias_and_a_batchnorm_without_weights():
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 1, groups=1)
    )
    nn.init.normal_(network[1].running_mean)
    nn.init.uniform_(network[1].running_var, 0.5, 2.0)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    network.double().eval()
    expected = network(x)
    with folded(network):
        assert (network(x) - expected).abs().max() < 1e-12
        assert not network(x).requires_grad


@pytest.mark.parametrize("fold", [True, False])
def test_a_recipe_can_turn_it_off(fold):
    from engine.attacks.training import training_attack
    from engine.methods.at import At

    assert Run().fold
    assert training_attack(recipe.Attack(), At(), fold=fold).fold is fold


@pytest.mark.parametrize(
    ("features", "arch", "bfloat16"),
    [
        ({"avx512_bf16": True}, "resnet-18", True),
        ({"amx_bf16": True}, "wrn-34-10", True),
        ({"avx512_bf16": False, "amx_bf16": False}, "resnet-18", False),
        ({}, "wrn-34-10", False),
        ({"avx512_bf16": True}, "small-cnn", False),
        ({"avx512_bf16": True}, "mobilenetv3-large", False),
    ],
)
def test_precision_auto_follows_a_rule(monkeypatch, features, arch, bfloat16):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    model = Model(arch=arch)
    assert machine.prepare(Run(device="cpu"), model).bfloat16 is bfloat16
    assert machine.prepare(Run(device="cpu", precision="bfloat16"), model).bfloat16
    assert not machine.prepare(Run(device="cpu", precision="float32"), model).bfloat16
    assert not machine.prepare(Run(device="cpu")).bfloat16
