"""What every network of the engine returns from one forward."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    """Penultimate features h [B, D] (after global pooling) and logits z [B, C] (no softmax)."""

    features: Tensor
    logits: Tensor
