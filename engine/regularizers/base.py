"""A loss that any method can carry beside its own: TRAIN's L_TP, or a term of a recipe's [terms.NAME].

A new term is one new file in this folder (or in a folder named by TRAINCTL_PLUGINS) with one class that derives
directly from Term. Its annotated `option(...)` fields are its options in the recipe's [terms.NAME].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Self

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.step import Step
    from engine.task import Task


class Regularizer(ABC):
    """What the training loop asks of a loss that is added to L_robust."""

    measure: ClassVar[str] = ""
    """Metric under which the unweighted loss is logged; empty: it is not."""

    @property
    @abstractmethod
    def needs(self) -> Sequence[str]:
        """The forwards of a Step that `loss` uses: natural, adversarial, standard."""

    @abstractmethod
    def scale(self, epoch: int) -> float:
        """The weight in `epoch`, counted from 1."""

    @abstractmethod
    def loss(self, step: Step) -> Tensor:
        """The unweighted loss of one step, a scalar."""

    def share(self, part: int, whole: int) -> float:
        """What `loss` of `part` images counts in a step of `whole`; 1 if that is all. By default as a mean of them."""
        return part / whole

    def learnt(self) -> dict[str, nn.Parameter]:
        """Parameters of its own, which learn together with M'."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold to go on exactly, `learnt` included."""

    @abstractmethod
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned."""


@dataclass(frozen=True)
class Term(Regularizer):
    """Base of the terms in [terms.NAME]. Constants that the command line reads must be literals with an annotation."""

    needs: ClassVar[tuple[str, ...]] = ("adversarial",)  # a property where it depends on options
    needs_standard: ClassVar[bool] = False
    """True: M is trained beside M', also without TRAIN; `needs` then has "standard" in it."""
    needs_whole_batch: ClassVar[bool] = False
    """True: it cannot take a step in parts (run.micro_batch)."""
    inferred: ClassVar[str] = ""
    """What its authors leave open and is our choice, for people; empty: nothing."""

    memory: nn.Module | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Made by `prepared`: its parameters learn together with M', and with its buffers they are in each checkpoint."""
    weight: float = 1.0

    def prepared(self, task: Task) -> Self:
        """Return this term with the memory that it needs for a run, on task.device; by default as it is."""
        return self

    def scale(self, epoch: int) -> float:
        """Its weight, the same in every epoch."""
        return self.weight

    def learnt(self) -> dict[str, nn.Parameter]:
        """The parameters of its memory."""
        return {} if self.memory is None else dict(self.memory.named_parameters())

    def state(self) -> dict[str, Tensor]:
        """Its memory."""
        return {} if self.memory is None else self.memory.state_dict()

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take up what `state` returned."""
        if self.memory is not None:
            self.memory.load_state_dict(state)
