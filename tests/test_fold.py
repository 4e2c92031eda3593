"""The network as an attack sees it, with BatchNorm folded, against the network itself."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from engine import machine, recipe
from engine.attacks.pgd import PGD
from engine.models import fold
from engine.models.build import build
from engine.models.fold import folded
from engine.models.output import Output
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
LEFT = {"wrn-16-2": 7, "wrn-dropout": 4}  # BatchNorms behind no convolution: one a block, and the last


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


def norms(network):
    """Number of BatchNorms, and of those that are one multiplication and addition."""
    return sum(isinstance(module, _BatchNorm | fold._Affine) for module in network.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_it_computes_the_same(name):
    network, x, y = made(name)
    network.eval()
    exact = seen(copy.deepcopy(network).double(), x.double(), y)
    twin = folded(network)
    assert norms(twin) == LEFT.get(name, 0) < norms(network)
    assert not any(tensor.requires_grad for tensor in twin.parameters())
    for one, other in zip(seen(twin, x, y), exact, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize("name", ["resnet-18", "wrn-dropout", "mobilenetv3"])
def test_under_autocast_it_is_about_as_near_as_the_network_itself(name):
    network, x, y = made(name)
    network.eval()
    exact = seen(network, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        plain, found = seen(network, x, y), seen(folded(network), x, y)
    for one, other, true in zip(found, plain, exact, strict=True):
        assert one.dtype == torch.float32
        assert 0 < (one - true).norm() < 2.5 * (other - true).norm()


@pytest.mark.parametrize("name", NETWORKS)
def test_an_attack_leaves_the_network_as_it_was_and_outcomes_agree(name):
    network, x, y = made(name)
    next(network.modules()).eval()  # a mode of its own
    first = next(network.parameters())
    first.grad = torch.ones_like(first)
    before, modes = copy.deepcopy(network.state_dict()), [module.training for module in network.modules()]
    attributes = [dict(vars(module)) for module in network.modules()]
    images = []
    for form in (False, True):
        attack = PGD(0.05, 0.02, 4, fold=form)
        images.append(attack(network, x, y, torch.Generator().manual_seed(0)).images)
    # A sign may fall out otherwise where the gradient is zero but for rounding.
    assert (images[0] - images[1]).abs().gt(1e-6).double().mean() < 0.01
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert [module.training for module in network.modules()] == modes
    assert [vars(module).keys() for module in network.modules()] == [known.keys() for known in attributes]
    assert first.grad.eq(1).all()
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_batchnorm_in_train_mode_is_not_folded():
    network, x, y = made("resnet-18")
    other = copy.deepcopy(network)
    assert norms(folded(network)) == norms(network)
    images = []
    for one, form in ((network, True), (other, False)):
        attack = PGD(0.05, 0.02, 2, fold=form, batchnorm="train")
        images.append(attack(one, x, y, torch.Generator().manual_seed(0)).images)
    assert torch.equal(*images)
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in network.state_dict().items())


def places(network):
    """Where the tensors of a network lie."""
    return [tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())]


@pytest.mark.parametrize("name", ["resnet-18", "wrn-16-2"])
def test_the_twin_follows_the_network_and_stays_where_it_is(name):
    network, x, y = made(name)
    twin = folded(network.eval())
    before = places(twin)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    network.train()
    cross_entropy(network(x).logits, y).backward()
    optimizer.step()
    network.eval()
    assert folded(network) is twin
    assert places(twin) == before
    other = folded(copy.deepcopy(network))
    assert other is not twin
    for one, two in zip(seen(twin, x, y), seen(other, x, y), strict=True):
        assert torch.equal(one, two)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = folded(network)
        assert rounded is not twin
        assert rounded.conv1.weight.dtype == torch.bfloat16
        assert folded(network) is rounded
    assert folded(network) is twin


@pytest.mark.parametrize(
    "change",
    [
        lambda network: setattr(network, "linear", nn.Linear(32, 3)),
        lambda network: network.double(),
        lambda network: network.stages[0].append(nn.Conv2d(4, 4, 1)),
        lambda network: setattr(network, "bn1", nn.Identity()),
        lambda network: network.bn1.train(),
        lambda network: setattr(network.bn1, "eps", 0.5),
        lambda network: network.conv1.register_forward_hook(lambda module, given, out: 2 * out),
        lambda network: setattr(network.conv1, "forward", lambda x: x[:, :1].expand(-1, 4, -1, -1)),
    ],
)
def test_a_network_whose_structure_changed_gets_a_new_twin(change):
    network, x, y = made("resnet-18")
    twin = folded(network.eval())
    change(network)
    assert folded(network) is not twin
    x = x.to(network.linear.weight.dtype)
    expected, y = seen(copy.deepcopy(network), x, y % 3), y % 3
    for one, other in zip(seen(folded(network), x, y), expected, strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_a_twin_ends_with_its_network_and_is_no_part_of_it():
    network, _, _ = made("resnet-18")
    keys, twin = list(network.state_dict()), weakref.ref(folded(network.eval()))
    assert list(network.state_dict()) == keys
    assert len(pickle.dumps(copy.deepcopy(network))) < 1.5 * len(pickle.dumps(network.state_dict()))
    assert twin() is not None
    del network
    gc.collect()
    assert twin() is None


class Own(nn.Conv2d):
    """A convolution that standardises its weights, as a plug-in may have."""

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std(), self.bias)


class Strange(nn.Module):
    """What a plug-in's network may have: tensors that are no parameters, shared modules, a convolution of its own."""

    def __init__(self):
        super().__init__()
        self.temperature, self.direction = 2.0, torch.ones(3, 1, 1)
        shared = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
        one, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        nn.init.uniform_(one.running_var, 0.5, 2.0)
        nn.init.uniform_(other.weight, 0.5, 2.0)
        self.twice = nn.Sequential(shared, one, shared, other)
        self.own = nn.Sequential(Own(3, 4, 3), nn.BatchNorm2d(4, affine=False))
        nn.init.normal_(self.own[1].running_mean)
        self.weighted = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        self.untracked = nn.BatchNorm2d(4, track_running_stats=False)
        self.folds = {"weighted": "untracked", "nothing": "here"}

    def forward(self, x):
        maps = self.weighted(self.own(self.twice(x) * self.direction)) / self.temperature
        return Output(maps.mean((2, 3)), self.untracked(maps).amax((2, 3)))


def test_strange_networks_are_followed_too():
    network = Strange().double().eval()
    x, y = torch.rand(4, 3, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    for change in (lambda: None, lambda: setattr(network, "temperature", 3.0), lambda: network.direction.mul_(2.0)):
        change()
        for one, other in zip(seen(folded(network), x, y), seen(network, x, y), strict=True):
            assert (one - other).norm() < 1e-12 * other.norm()


def test_a_convolution_with_bias_and_a_batchnorm_without_weights():
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3, affine=False), nn.Conv2d(3, 2, 1, groups=1)
    )
    nn.init.normal_(network[1].running_mean)
    nn.init.uniform_(network[1].running_var, 0.5, 2.0)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    network.double().eval()
    twin = folded(network)
    assert (twin(x) - network(x)).abs().max() < 1e-12
    assert not twin(x).requires_grad


@pytest.mark.parametrize("form", [True, False])
def test_a_recipe_can_turn_it_off(form):
    from engine.attacks.training import training_attack
    from engine.methods.at import At

    assert Run().fold
    assert training_attack(recipe.Attack(), At(), fold=form).fold is form


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
    assert not machine.prepare(Run(device="cpu"), Model(arch="small-cnn")).bfloat16


def test_products_keep_their_digits_whatever_the_environment_says():
    torch.set_float32_matmul_precision("high")  # TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1, which images of NVIDIA's set
    try:
        machine.prepare(Run(device="cpu"), Model())
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision("highest")
