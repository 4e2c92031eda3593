"""Random numbers as pure functions of the seed and of what they are for.

Nothing here has a state that lives longer than one use, so there is none to save: a resumed run draws the
same numbers, and the two runs of a pair draw the same initial weights, order, augmentation and attack starts
although one of them trains a second network in between.
"""

from __future__ import annotations

import hashlib

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as ("augment", epoch, step)."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(device: torch.device | str, seed: int, *purpose: str | int) -> torch.Generator:
    """A generator on `device` seeded for one purpose."""
    return torch.Generator(device=device).manual_seed(derive(seed, *purpose))
