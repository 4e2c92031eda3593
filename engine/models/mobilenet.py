"""MobileNetV3-Large (Howard et al., 2019, arXiv:1905.02244), torchvision's."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from engine.losses import wide
from engine.models.output import Output


class MobileNetV3Large(nn.Module):
    """torchvision's network; features are the 1280 values after the hidden layer's h-swish, before dropout.

    The stem "cifar" takes stride 1 in the first convolution and in the first down-sampling block, so that a 32x32
    image ends as 4x4; "imagenet" keeps the strides, and it ends as 1x1.
    """

    def __init__(self, channels: int, classes: int, stem: Literal["cifar", "imagenet"] = "cifar") -> None:
        super().__init__()
        from torchvision.models import mobilenet_v3_large

        network = mobilenet_v3_large(weights=None, num_classes=classes)
        first = network.features[0][0]
        if channels != first.in_channels:
            first = nn.Conv2d(channels, first.out_channels, 3, first.stride, padding=1, bias=False)
            nn.init.kaiming_normal_(first.weight, mode="fan_out")  # as torchvision does
            network.features[0][0] = first
        if stem == "cifar":
            strided = [module for module in network.features.modules() if getattr(module, "stride", None) == (2, 2)]
            for convolution in strided[:2]:
                convolution.stride = (1, 1)
        self.stages, self.pool = network.features, network.avgpool
        hidden, activation, dropout, linear = network.classifier
        dropout.inplace = False  # the features must stay as they are
        self.hidden = nn.Sequential(hidden, activation)
        self.dropout, self.linear = dropout, linear
        # Depthwise convolutions are three times as fast so on a CPU.
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Output:
        """Features and logits of x [B, C, H, W] in [0, 1]."""
        maps = self.stages(x)
        with torch.autocast(x.device.type, enabled=False):  # as `pooled` does
            features = self.hidden(self.pool(wide(maps)).flatten(1))
            return Output(features, self.linear(self.dropout(features)))
