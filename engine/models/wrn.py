"""Wide residual networks WRN-D-W (Zagoruyko & Komodakis, 2016, arXiv:1605.07146)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from engine.models.output import Output, pooled

STEM = 16  # channels of the first convolution, whatever W is


class PreActivationBlock(nn.Module):
    """BN-ReLU-conv twice; where the width changes, the shortcut is a 1x1 convolution of the pre-activated input."""

    folds: ClassVar[dict[str, str]] = {"conv1": "bn2"}  # bn1 comes before a convolution, behind a ReLU: it stays

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        projects = inputs != outputs or stride != 1
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if projects else None
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        activated = F.relu(self.bn1(x), inplace=True)
        out = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        return self.conv2(out) + (x if self.shortcut is None else self.shortcut(activated))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Three groups of (depth - 4) / 6 blocks with strides 1, 2, 2; features are 4 times `width` wide.

    `width` is the number of channels of the first group: 16 W.
    """

    def __init__(self, channels: int, classes: int, depth: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, STEM, 3, padding=1, bias=False)
        blocks, inputs = [], STEM
        for group, stride in enumerate((1, 2, 2)):
            outputs = width * 2**group
            for block in range((depth - 4) // 6):
                blocks.append(PreActivationBlock(inputs, outputs, stride if block == 0 else 1, dropout))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
                nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Output:
        """Features and logits of x [B, C, H, W] in [0, 1]."""
        out = F.relu(self.bn(self.blocks(self.conv1(x))), inplace=True)
        return pooled(out, self.linear)
