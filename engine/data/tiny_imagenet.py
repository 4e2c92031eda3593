"""Tiny ImageNet-200 (Stanford's course CS231N) in the layout of its official archive.

    tiny-imagenet-200/wnids.txt                      the 200 class names
                     /train/<wnid>/images/*.JPEG     500 a class
                     /val/images/*.JPEG, val_annotations.txt     10 000: file name, class name, box

The archive's test images have no labels, so its validation images serve as the test split, as in the literature.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from engine.data._arrays import read_npz
from engine.data._images import RESIZING, decode
from engine.data._obtain import Remote, obtain_archive
from engine.data.base import DataError, DataSource, Source, Split, Splits
from engine.options import option

REMOTE = Remote(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "Stanford University", "90528d7ca1a48142e341f4ef8d21d0de"
)
CLASSES, PER_CLASS, VALIDATION = 200, 500, 10_000
Listing = list[tuple[Path, int]]


@dataclass(frozen=True)
class TinyImagenet(DataSource):
    """100 000 + 10 000 colour images, 64x64 resized, 200 classes; tiny-imagenet-200/ or its .zip under data.root."""

    found_at: ClassVar[tuple[str, ...]] = ("tiny-imagenet-200", "tiny-imagenet-200.zip")

    image_size: int = option(32, ge=8, le=64, help="images are resized to this many pixels a side")

    def load(self, source: Source) -> Splits:
        """Decode the archive's JPEGs once and keep the resized images beside it, if that folder can be written."""
        folder = obtain_archive(REMOTE, source, "tiny-imagenet-200")
        names = sorted(_lines(folder / "wnids.txt"))
        classes = {name: number for number, name in enumerate(names)}
        listings = {"train": _train(folder, classes), "test": _test(folder, classes)}
        found = len(classes), len(listings["train"]), len(listings["test"])
        if source.verify and found != (CLASSES, CLASSES * PER_CLASS, VALIDATION):
            raise DataError(
                f"{folder}: {found[0]} classes, {found[1]} training and {found[2]} validation images; "
                f"expected {CLASSES}, {CLASSES * PER_CLASS} and {VALIDATION}",
                "unpack the whole archive again, or set data.verify = false to take what is there",
            )
        images = self._images(folder, listings)
        splits = {
            name: Split(torch.from_numpy(images[name]), torch.tensor([label for _, label in listing]))
            for name, listing in listings.items()
        }
        return Splits(train=splits["train"], test=splits["test"], classes=len(classes))

    def _images(self, folder: Path, listings: dict[str, Listing]) -> dict[str, np.ndarray[Any, Any]]:
        """uint8 [n, 3, size, size] per split, from the cache if it was made of the same files."""
        cache = folder.with_name(f"{folder.name}-{self.image_size}x{self.image_size}.npz")
        content = hashlib.sha256(RESIZING.encode())
        for listing in listings.values():
            content.update("\n".join(str(path.relative_to(folder)) for path, _ in listing).encode())
            content.update("\n".join(str(path.stat().st_mtime_ns) for path in _folders(listing)).encode())
        key = content.hexdigest()
        try:
            stored = read_npz(cache, ("key", *listings)) if cache.is_file() else {}
            if stored and str(stored.pop("key")) == key:
                return stored
        except (OSError, DataError):
            pass  # not one of ours: make it
        images = {
            name: decode([path for path, _ in listing], self.image_size).numpy() for name, listing in listings.items()
        }
        _store(cache, {"key": np.array(key), **images})
        return images


def _folders(listing: Listing) -> list[Path]:
    return sorted({path.parent for path, _ in listing})


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", "unpack the whole archive again") from None


def _train(folder: Path, classes: dict[str, int]) -> Listing:
    listing: Listing = []
    for name, label in classes.items():
        files = sorted((folder / "train" / name / "images").glob("*.JPEG"))
        if not files:
            raise DataError(f"{folder / 'train' / name / 'images'}: no *.JPEG in it", "unpack the whole archive again")
        listing += [(file, label) for file in files]
    return listing


def _test(folder: Path, classes: dict[str, int]) -> Listing:
    annotations = folder / "val" / "val_annotations.txt"
    listing: Listing = []
    for number, line in enumerate(_lines(annotations), start=1):
        file, name, *_ = [*line.split("\t"), ""]
        if name not in classes:
            raise DataError(
                f"{annotations}:{number}: expected a file name, a tab and a class of wnids.txt, found {line[:60]!r}",
                "unpack the whole archive again",
            )
        listing.append((folder / "val" / "images" / file, classes[name]))
    return listing


def _store(path: Path, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
    """Write the cache whole or not at all; a folder that cannot be written only costs the decoding each time."""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        return
