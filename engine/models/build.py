"""The network that a recipe's [model] or [standard] describes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.mobilenet import MobileNetV3Large
from engine.models.resnet import ResNet18
from engine.models.small_cnn import SmallCNN
from engine.models.wrn import STEM, WideResNet
from engine.recipe import Model

STRIDES = {"standard": (1, 2, 2, 2), "lbgat": (1, 1, 2, 2)}  # of ResNet-18's stages
SMALLEST = 8


class Normalize(nn.Module):
    """(x - mean) / std per channel: inside the network, so that attacks work on [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised x [B, C, H, W]."""
        return (x - self.mean) / self.std


def build(section: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    """A freshly initialised network for images [B, channels, image_size, image_size]; its forward returns an Output.

    The initial weights come from torch's global generator. ValueError for settings that do not fit the images.
    """
    if channels not in (1, 3) or image_size < SMALLEST or classes < 2:
        raise ValueError(
            f"no network for {classes} classes of {channels}x{image_size}x{image_size} images: "
            f"expected 2 classes or more, 1 or 3 channels, {SMALLEST} pixels or more"
        )
    _check_normalisation(section, channels)
    network = _network(section, channels, image_size, classes)
    if not section.mean:
        return network
    return nn.Sequential(OrderedDict(normalize=Normalize(section.mean, section.std), network=network))


def _network(section: Model, channels: int, image_size: int, classes: int) -> nn.Module:
    if section.arch == "small-cnn":
        return SmallCNN(channels, image_size, classes, section.width or 16)
    if section.arch == "resnet-18":
        return ResNet18(channels, classes, section.width or 64, STRIDES[section.strides])
    if section.arch == "mobilenetv3-large":
        if section.width:
            raise ValueError(
                f"width = {section.width} does not go with mobilenetv3-large, whose widths are fixed; use 0"
            )
        return MobileNetV3Large(channels, classes, section.stem)
    kind, *numbers = section.arch.split("-")
    if kind != "wrn" or len(numbers) != 2:
        raise ValueError(
            f"no architecture {section.arch!r}: expected small-cnn, resnet-18, wrn-D-W or mobilenetv3-large"
        )
    depth, factor = map(int, numbers)
    return WideResNet(channels, classes, depth, section.width or STEM * factor, section.dropout)


def _check_normalisation(section: Model, channels: int) -> None:
    for name, values in (("mean", section.mean), ("std", section.std)):
        if (section.mean or section.std) and len(values) != channels:
            raise ValueError(
                f"{name} has {len(values)} values, but the images have {channels} channels; give one each, or none"
            )
    if any(value <= 0 for value in section.std):
        raise ValueError(f"std = {section.std} must be above 0")
