"""Where float32 means float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_tf32() -> Iterator[None]:
    """No TF32 within, whose 10 bits PyTorch allows convolutions on a GPU by default."""
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products


@contextmanager
def exactly(device_type: str) -> Iterator[None]:
    """Full float32 within: neither autocast nor TF32."""
    with torch.autocast(device_type, enabled=False), without_tf32():
        yield


def rounds(device_type: str) -> bool:
    """Whether convolutions on it may see fewer digits than float32 has, as things are set at this moment."""
    return torch.is_autocast_enabled(device_type) or (device_type == "cuda" and torch.backends.cudnn.allow_tf32)
