"""ResNet-18 for small images (He et al., 2016, arXiv:1512.03385; 3x3 stem without max-pooling)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from engine.models.output import Output, pooled


class BasicBlock(nn.Module):
    """conv-BN-ReLU-conv-BN, added to the input or its 1x1 projection, then ReLU."""

    folds: ClassVar[dict[str, str]] = {"conv1": "bn1", "conv2": "bn2"}

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] to [B, outputs, H/stride, W/stride]."""
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class ResNet18(nn.Module):
    """Four stages of two blocks, of width, 2 width, 4 width and 8 width channels; features are 8 width wide."""

    folds: ClassVar[dict[str, str]] = {"conv1": "bn1"}

    def __init__(self, channels: int, classes: int, width: int = 64, strides: Sequence[int] = (1, 2, 2, 2)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage, stride in enumerate(strides):
            outputs = width * 2**stage
            stages.append(nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1)))
            inputs = outputs
        self.stages = nn.Sequential(*stages)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Output:
        """Features and logits of x [B, C, H, W] in [0, 1]."""
        out = self.stages(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return pooled(out, self.linear)
