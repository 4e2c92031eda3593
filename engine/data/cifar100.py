"""CIFAR-100 (Krizhevsky, 2009), with its 100 fine labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.data._cifar import Archive, read
from engine.data.base import DataSource, Source, Splits

ARCHIVE = Archive(
    name="CIFAR100",
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    label_key="fine_labels",
    classes=100,
)


@dataclass(frozen=True)
class Cifar100(DataSource):
    """50 000 + 10 000 colour images, 32x32, 100 classes; cifar-100-python/ or its .tar.gz under data.root."""

    found_at: ClassVar[tuple[str, ...]] = ("cifar-100-python", "cifar-100-python.tar.gz")

    def load(self, source: Source) -> Splits:
        """Read, unpack or download the archive for Python."""
        return read(ARCHIVE, source)
