"""The threat models of the evaluation, as data: what is attacked with which steps, and by whose code.

Two protocols are in circulation for "PGD-20" and "C&W-20", and their numbers differ:

    lbgat   TRADES' evaluation script (Zhang et al. 2019), also used for LBGAT (Cui et al. 2021): eps 0.031,
            step 0.003, uniform start that is not clipped to [0, 1], every sample moves at every step
    las     LAS-AT's evaluation (Jia et al. 2022): eps 8/255, step 2/255, uniform start clipped to [0, 1],
            only samples still classified correctly move

C&W-20 is PGD on the margin max_{k != y} z_k - z_y with the steps of PGD-20, as both call it, and not Carlini and
Wagner's optimisation. PGD-10 chooses `best`: ten steps of eps/4, which under las is LAS-AT's own 2/255; ten of
TRADES' small steps would end short of the ball's other side. AutoAttack takes the protocol's eps.

A recipe's eval.eps and eval.step_size replace a protocol's values. Where only eps is replaced, the step keeps the
protocol's proportion to it: 20 steps of 0.003 in a ball of 0.25 would be no attack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine import recipe as schema
from engine.attacks import autoattack
from engine.attacks.pgd import PGD, misclassified

VERSION = "1"
"""Raised whenever a change of the evaluation's code changes its numbers."""

Loss = Literal["ce", "margin"]
Start = Literal["uniform", "uniform-clipped"]
Stop = Literal["none", "misclassified"]


@dataclass(frozen=True)
class Threat:
    """What an accuracy was measured against; a number never travels without it. None: does not apply.

    attack: none, pgd or autoattack; loss: what it climbs; norm: linf; eps and step_size: fractions of the pixel
    range; start: uniform is not clipped to [0, 1] before the first gradient, uniform-clipped is; stop: misclassified
    leaves a sample where it is once it is misclassified.
    """

    protocol: str
    attack: str
    implementation: str
    version: str
    loss: Loss | None = None
    norm: str | None = None
    eps: float | None = None
    step_size: float | None = None
    steps: int | None = None
    start: Start | None = None
    stop: Stop | None = None


@dataclass(frozen=True)
class _Protocol:
    eps: float
    step_size: float
    start: Start
    stop: Stop


PROTOCOLS = {
    "lbgat": _Protocol(0.031, 0.003, "uniform", "none"),
    "las": _Protocol(8 / 255, 2 / 255, "uniform-clipped", "misclassified"),
}
PGD_METRICS: dict[str, tuple[int, Loss]] = {"pgd10": (10, "ce"), "pgd20": (20, "ce"), "cw20": (20, "margin")}


def threat(evaluation: schema.Eval, metric: str, classes: int) -> Threat:
    """The threat model of `metric` (natural, pgd10, pgd20, cw20 or aa) under a recipe's [eval] section.

    Raises ValueError for a metric that is no accuracy.
    """
    name = evaluation.protocol
    protocol = PROTOCOLS[name]
    eps = evaluation.eps or protocol.eps
    if metric == "natural":
        return Threat(name, "none", "engine.evaluate", VERSION)
    if metric == "aa":
        form = autoattack.form(classes)
        return Threat(name, "autoattack", autoattack.implementation(), form.version, norm="linf", eps=eps)
    if metric not in PGD_METRICS:
        raise ValueError(f"{metric!r} is no accuracy; known: natural, {', '.join(PGD_METRICS)}, aa")
    steps, loss = PGD_METRICS[metric]
    own_step = eps / 4 if metric == "pgd10" else protocol.step_size * (eps / protocol.eps)
    return Threat(
        name, "pgd", "engine.attacks.pgd", VERSION, loss, "linf",
        eps, evaluation.step_size or own_step, steps, protocol.start, protocol.stop,
    )  # fmt: skip


def attack(model: Threat) -> PGD | None:
    """The projected-gradient attack of a threat model; None for natural images.

    Raises ValueError for AutoAttack, which is no setting of it.
    """
    if model.attack == "none":
        return None
    if model.loss is None or model.eps is None or model.step_size is None or model.steps is None:
        raise ValueError(f"{model.attack!r} is no setting of the projected-gradient attack")
    return PGD(
        eps=model.eps,
        step_size=model.step_size,
        steps=model.steps,
        loss=model.loss,
        start="uniform",
        clip_start=model.start == "uniform-clipped",
        batchnorm="eval",
        fold=True,  # the images are made so; what they are classified as, the network itself says
        stop=misclassified if model.stop == "misclassified" else None,
    )
