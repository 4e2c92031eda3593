"""A data set: real images as uint8 tensors, with a fixed test split.

A new data set is one new file in this folder (or in a folder named by TRAINCTL_PLUGINS) with one class that
derives directly from DataSource. Its name in a recipe is the class name in kebab-case; its `option(...)`
fields stand in the recipe's [data].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor


class DataError(Exception):
    """A data set that is missing, damaged or of another form. `hint` says where to put what."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Split:
    """images [n, C, H, W] uint8, labels [n] int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Splits:
    """The splits of a data set. `validation` is None where the data set has none of its own; the loader then
    holds out a stratified share of the training split if the recipe chooses `best` on validation.
    """

    train: Split
    test: Split
    classes: int
    validation: Split | None = None


@dataclass(frozen=True)
class Source:
    """Where to look: `root` holds the data sets, each in its usual layout."""

    root: Path
    verify: bool = True
    download: bool = True


@dataclass(frozen=True)
class DataSource(ABC):
    """Base of all data sets. Constants that the command line reads must be literals with an annotation."""

    found_at: ClassVar[tuple[str, ...]] = ()
    """Where its files may lie, under `Source.root` or absolute; none of a data set that needs no file of its own."""
    needs_path: ClassVar[bool] = False
    """True if it lies nowhere unless its option `path` says where: a recipe without it starts nothing."""

    @abstractmethod
    def load(self, source: Source) -> Splits:
        """Read the images. Raises DataError naming the file, the owner of its address and where to put it."""
