"""What a method or a term may know of its run before the first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.recipe import Recipe


@dataclass(frozen=True)
class Task:
    """The recipe, the shape of the data and of the networks' features, and the device that all tensors lie on."""

    recipe: Recipe
    classes: int
    image: tuple[int, int, int]
    """Channels, height and width."""
    labels: Tensor
    """[N] int64, of the training split; Batch.index points into it."""
    features: int
    """Width of M' penultimate features."""
    standard_features: int
    """Width of M's; 0 where there is no M."""
    device: torch.device
