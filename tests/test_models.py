"""Networks: published sizes, shapes, initial weights, and what the settings change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from engine.models.build import Normalize, build
from engine.models.mobilenet import MobileNetV3Large
from engine.models.output import Output
from engine.recipe import Model

COUNTS = [  # (arch, classes, parameters)
    ("resnet-18", 10, 11_173_962),
    ("resnet-18", 100, 11_220_132),
    ("resnet-18", 200, 11_271_432),
    ("wrn-34-10", 10, 46_160_474),
    ("wrn-34-10", 100, 46_218_164),
    ("wrn-34-10", 200, 46_282_264),
    ("mobilenetv3-large", 10, 4_214_842),
    ("mobilenetv3-large", 100, 4_330_132),
]
FEATURES = {"small-cnn": 64, "resnet-18": 512, "wrn-10-2": 128, "mobilenetv3-large": 1280}


def make(arch="small-cnn", channels=3, size=32, classes=10, **settings) -> nn.Module:
    torch.manual_seed(0)
    return build(Model(arch=arch, **settings), channels, size, classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("arch", "classes", "expected"), COUNTS)
def test_parameter_counts(arch, classes, expected):
    with torch.device("meta"):
        assert parameters(build(Model(arch=arch), 3, 32, classes)) == expected


@pytest.mark.parametrize(("strides", "stem"), [("lbgat", "cifar"), ("standard", "imagenet")])
def test_strides_cost_no_parameters(strides, stem):
    assert parameters(make("resnet-18", strides=strides)) == COUNTS[0][2]
    assert parameters(make("mobilenetv3-large", stem=stem)) == COUNTS[6][2]


@pytest.mark.parametrize("arch", FEATURES)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (1, 28), (3, 32), (3, 35)])
def test_features_and_logits_come_from_one_forward(arch, channels, size):
    network = make(arch, channels, size, classes=7)
    x = torch.rand(3, channels, size, size)
    out = network(x)
    assert isinstance(out, Output)
    assert out.features.shape == (3, FEATURES[arch]) and out.logits.shape == (3, 7)
    network.eval()
    out = network(x)
    assert torch.equal(network.linear(out.features), out.logits)
    out.logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def spatial(network: nn.Module, layers: nn.Module, size: int) -> int:
    """Side of the map that is pooled."""
    sizes = []
    handle = layers.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    network.eval()(torch.rand(1, 3, size, size))
    handle.remove()
    return sizes[0]


def test_how_far_each_network_shrinks_the_image():
    for strides, side in (("standard", 4), ("lbgat", 8)):
        network = make("resnet-18", strides=strides, width=4)
        assert spatial(network, network.stages, 32) == side
    for stem, side in (("cifar", 4), ("imagenet", 1)):
        network = make("mobilenetv3-large", stem=stem)
        assert spatial(network, network.stages, 32) == side
    for size, side in ((8, 2), (28, 4), (32, 4), (16, 4)):
        network = make("small-cnn", size=size)
        assert spatial(network, network.stages, size) == side
    network = make("wrn-10-1")
    assert spatial(network, network.blocks, 32) == 8


def test_lbgat_strides_are_1_1_2_2():
    network = make("resnet-18", strides="lbgat", width=4)
    assert [stage[0].conv1.stride[0] for stage in network.stages] == [1, 1, 2, 2]
    assert [stage[1].conv1.stride[0] for stage in network.stages] == [1, 1, 1, 1]


def test_width_is_the_first_stages():
    assert make("resnet-18", width=8).linear.in_features == 64
    assert make("small-cnn", width=4).linear.in_features == 16
    assert make("wrn-10-1", width=24).blocks[0].conv1.out_channels == 24
    assert make("wrn-16-3").linear.in_features == 4 * 48
    assert len(make("wrn-16-1").blocks) == 6


def test_wrn_initial_weights():
    """conv N(0, sqrt(2 / (k^2 out))), BN 1/0, linear bias 0 (Zagoruyko & Komodakis)."""
    network = make("wrn-10-4")
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 10_000:
            expected = math.sqrt(2 / (module.kernel_size[0] ** 2 * module.out_channels))
            assert module.weight.std().item() == pytest.approx(expected, rel=0.03)
            assert abs(module.weight.mean().item()) < expected / 20
        if isinstance(module, nn.BatchNorm2d):
            assert torch.all(module.weight == 1) and torch.all(module.bias == 0)
    assert torch.all(network.linear.bias == 0)


def test_wrn_block_projects_the_preactivated_input():
    """Against the block written out: x is replaced by relu(bn(x)) in the shortcut where the width changes only."""
    network = make("wrn-16-1").eval()
    x = torch.randn(2, 16, 8, 8)
    same, changing = network.blocks[1], network.blocks[2]
    for block in (same, changing):
        block.bn1.running_mean.normal_()
    inner = lambda block: block.conv2(torch.relu(block.bn2(block.conv1(torch.relu(block.bn1(x))))))  # noqa: E731
    assert torch.allclose(same(x), inner(same) + x, atol=1e-6)
    assert torch.allclose(changing(x), inner(changing) + changing.shortcut(torch.relu(changing.bn1(x))), atol=1e-6)


def test_dropout_acts_in_training_only_and_only_if_asked_for():
    dropping, plain, x = make("wrn-10-1", dropout=0.5), make("wrn-10-1"), torch.rand(4, 3, 16, 16)
    assert not torch.equal(dropping(x).logits, dropping(x).logits)
    assert torch.equal(plain(x).logits, plain(x).logits)
    dropping.eval().load_state_dict(plain.state_dict())
    assert torch.equal(dropping(x).logits, plain.eval()(x).logits)


def test_mobilenet_features_are_untouched_by_dropout():
    network, x = make("mobilenetv3-large"), torch.rand(2, 3, 32, 32)
    pooled = network.eval().pool(network.stages(x)).flatten(1)
    expected = network.hidden(pooled)
    network.dropout.train()
    out = network(x)
    assert torch.equal(out.features, expected)
    assert not torch.allclose(network.linear(out.features), out.logits, atol=0.0)


def test_mobilenet_is_torchvisions():
    """With the strides of ImageNet, the same weights give torchvision's logits."""
    from torchvision.models import mobilenet_v3_large

    torch.manual_seed(0)
    reference = mobilenet_v3_large(weights=None, num_classes=10).eval()
    torch.manual_seed(0)
    network = MobileNetV3Large(3, 10, "imagenet").eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.allclose(network(x).logits, reference(x), atol=1e-6)  # its memory layout is another


def test_normalisation_is_inside_the_network():
    mean, std = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]
    plain, normalised = make("resnet-18", width=4).eval(), make("resnet-18", width=4, mean=mean, std=std).eval()
    x = torch.rand(2, 3, 16, 16)
    scaled = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(normalised(x).logits, plain(scaled).logits, atol=1e-5)
    assert parameters(normalised) == parameters(plain)
    assert {"normalize.mean", "normalize.std"} <= set(normalised.state_dict())
    assert Normalize([0.5], [0.5])(torch.tensor(1.0).view(1, 1, 1, 1)).item() == 1.0


def test_the_same_seed_builds_the_same_weights():
    for arch in ("small-cnn", "wrn-10-1", "mobilenetv3-large"):
        first, second = make(arch).state_dict(), make(arch).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("settings", "channels", "size", "classes", "message"),
    [
        ({"mean": [0.5], "std": [0.5]}, 3, 32, 10, "mean has 1 values, but the images have 3 channels"),
        ({"mean": [0.5] * 3, "std": [0.5]}, 3, 32, 10, "std has 1 values"),
        ({"mean": [0.5], "std": [0.0]}, 1, 32, 10, "must be above 0"),
        ({"arch": "mobilenetv3-large", "width": 8}, 3, 32, 10, "widths are fixed"),
        ({}, 2, 32, 10, "1 or 3 channels"),
        ({}, 3, 4, 10, "8 pixels or more"),
        ({}, 3, 32, 1, "2 classes or more"),
    ],
)
def test_settings_that_do_not_fit(settings, channels, size, classes, message):
    with pytest.raises(ValueError, match=message):
        build(Model(**settings), channels, size, classes)


def test_an_unknown_architecture_is_named():
    section = Model().model_copy(update={"arch": "vgg"})
    with pytest.raises(ValueError, match="no architecture 'vgg'"):
        build(section, 3, 32, 10)
