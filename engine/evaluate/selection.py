"""The accuracies by which the checkpoint `best` is chosen while a run trains."""

from __future__ import annotations

import torch
from torch import nn

from engine.data.base import Split
from engine.evaluate.accuracy import Poll, accuracy, never
from engine.evaluate.protocols import attack, threat
from engine.recipe import Recipe


def select_accuracies(
    recipe: Recipe, network: nn.Module, split: Split, device: torch.device, poll: Poll = never
) -> dict[str, float]:
    """Natural accuracy and the one named by eval.best_by on all of `split`, in percent.

    The random starts are the same at every call, so that epochs differ by their weights alone.
    """
    section = recipe.eval
    everything = torch.arange(len(split))
    result: dict[str, float] = {}
    for metric in dict.fromkeys(("natural", section.best_by)):
        pgd = attack(threat(section, metric, classes=0))
        outcomes = accuracy(
            network, split, everything, section.batch_size, device, pgd, section.seed, metric, poll=poll
        )  # fmt: skip
        result[metric] = outcomes.percent
    return result
