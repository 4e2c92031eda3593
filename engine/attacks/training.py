"""The attack of a training run: what the recipe says, and the method's own form where it says "auto"."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from engine.attacks.pgd import PGD, Loss, Start

if TYPE_CHECKING:
    from engine import recipe
    from engine.methods.base import Method


def training_attack(section: recipe.Attack, method: Method, micro_batch: int = 0, fold: bool = False) -> PGD | None:
    """The attack that `method` trains against under the recipe's [attack]; None for a method without one.

    A uniform start is clipped to [0, 1] before the first gradient and a gaussian one is not, as in the codes
    that use them.
    """
    if not method.adversarial:
        return None
    loss, start = method.attack_form()
    if section.loss != "auto":
        loss = section.loss
    if section.start != "auto":
        start = section.start
    return PGD(
        eps=section.eps,
        step_size=section.step_size,
        steps=section.steps,
        loss=cast(Loss, loss),
        start=cast(Start, start),
        clip_start=start == "uniform",
        batchnorm=section.batchnorm,
        micro_batch=micro_batch,
        fold=fold,
    )
