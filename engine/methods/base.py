"""A training method: which loss its attack climbs, which forwards it needs, which terms it adds.

A new method is one new file in this folder (or in a folder named by TRAINCTL_PLUGINS) with one class that
derives directly from Method. Its annotated `option(...)` fields are its options in a recipe's [method]; its
literal constants below may be overridden.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from engine.step import Perturbed

if TYPE_CHECKING:
    from engine.attacks.pgd import PGD
    from engine.step import Batch, Position, Step
    from engine.task import Task


@dataclass(frozen=True)
class Order:
    """The train-mode forwards of one step, which move BatchNorm's statistics: "natural" (M' on x), "adversarial" (M' on
    x'), "standard" (M on x). Those outside `loss`, and repetitions in it, serve nothing else and carry no gradient.
    """

    loss: tuple[str, ...]
    """Those of the losses, at the weights that `Method.displaced` gives."""
    before_attack: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    """Between attack and losses, before the weights are displaced."""
    after: tuple[str, ...] = ()
    """After the update."""


@dataclass(frozen=True)
class Method(ABC):
    """Base of all methods. Constants that the command line reads must be literals with an annotation."""

    adversarial: ClassVar[bool] = True
    """False: there is no attack, and x' does not exist."""
    attack_loss: ClassVar[str] = "ce"
    """What the training attack climbs unless the recipe says otherwise: ce, kl or margin."""
    attack_start: ClassVar[str] = "gaussian"
    """Where it starts unless the recipe says otherwise: gaussian, uniform or none."""
    forwards: ClassVar[tuple[str, ...]] = ("adversarial",)
    """Train-mode forwards in order: "natural" (M' on x), "adversarial" (M' on x'), "standard" (M on x)."""
    needs_standard: ClassVar[bool] = False
    """True: M is trained beside M' even without TRAIN."""
    needs_whole_batch: ClassVar[bool] = False
    """True: it cannot take a step in parts (run.micro_batch). False: `losses` are means over the images, and a network
    is run in `perturb` by the attack alone.
    """
    inferred: ClassVar[str] = ""
    """What its authors leave open and is our choice, for people; empty: nothing."""

    memory: nn.Module | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Made by `prepared`: what the method trains by itself or remembers; in each checkpoint, not in M' optimizer."""

    @abstractmethod
    def losses(self, step: Step) -> dict[str, Tensor]:
        """The parts of L_robust by name, weighted, to be summed; each is logged as loss_<name>."""

    def prepared(self, task: Task) -> Self:
        """Return this method with the memory that it needs for a run, on task.device; by default as it is."""
        return self

    def official(self, attack: PGD) -> Order:
        """The forwards of the authors' code, for method.forwards = "official"; `attack` is that of the training."""
        return Order(self.forwards)

    def attack_form(self) -> tuple[str, str]:
        """(loss, start) of the training attack where the recipe says "auto"; override it if options decide."""
        return self.attack_loss, self.attack_start

    def perturb(
        self, network: nn.Module, batch: Batch, attack: PGD, position: Position, generator: torch.Generator
    ) -> Perturbed:
        """x' for `batch`: by default the projected-gradient attack as the recipe sets it."""
        images, correct, _ = attack(network, batch.x, batch.y, generator)
        return Perturbed(batch, images, correct)

    def displaced(
        self, network: nn.Module, robust_loss: Callable[[nn.Module], Tensor], position: Position
    ) -> AbstractContextManager[None]:
        """Context in which the step's losses, their gradient and the update are taken; by default M' as it is.

        A method that moves the weights meanwhile puts them back. `robust_loss(network)` is L_robust of this step for
        a stand-in of M', computed anew.
        """
        return nullcontext()
