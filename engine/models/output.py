"""What every network of the engine returns from one forward."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.losses import wide


class Output(NamedTuple):
    """Penultimate features h [B, D] (after global pooling) and logits z [B, C] (no softmax)."""

    features: Tensor
    logits: Tensor


def pooled(maps: Tensor, linear: nn.Linear) -> Output:
    """Global average pool of maps [B, D, H, W] and the last layer, in float32 or wider also under autocast: L_TP
    compares features whose ratios lie within a few per cent of 1.
    """
    with torch.autocast(maps.device.type, enabled=False):
        features = F.adaptive_avg_pool2d(wide(maps), 1).flatten(1)
        return Output(features, linear(features))
