"""A small convolutional network for 8x8 and 28x28 images."""

from __future__ import annotations

from torch import Tensor, nn

from engine.models.output import Output, pooled

LARGE = 28  # from this image size on the first convolution has stride 2 as well


class SmallCNN(nn.Module):
    """Three 3x3 conv-BN-ReLU stages of width, 2 width and 4 width channels, a global average pool, a linear layer.

    The last two stages have stride 2; features are 4 width wide.
    """

    def __init__(self, channels: int, image_size: int, classes: int, width: int = 16) -> None:
        super().__init__()
        strides = (2 if image_size >= LARGE else 1, 2, 2)
        layers: list[nn.Module] = []
        inputs = channels
        for stage, stride in enumerate(strides):
            outputs = width * 2**stage
            layers += [
                nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            inputs = outputs
        self.stages = nn.Sequential(*layers)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Output:
        """Features and logits of x [B, C, H, W] in [0, 1]."""
        return pooled(self.stages(x), self.linear)
