"""CIFAR-10 (Krizhevsky, 2009)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from engine.data._cifar import Archive, read
from engine.data.base import DataSource, Source, Splits

ARCHIVE = Archive(
    name="CIFAR10",
    folder="cifar-10-batches-py",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test=("test_batch",),
    label_key="labels",
    classes=10,
)


@dataclass(frozen=True)
class Cifar10(DataSource):
    """50 000 + 10 000 colour images, 32x32, 10 classes; cifar-10-batches-py/ or its .tar.gz under data.root."""

    found_at: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py", "cifar-10-python.tar.gz")

    def load(self, source: Source) -> Splits:
        """Read, unpack or download the archive for Python."""
        return read(ARCHIVE, source)
