"""Fashion-MNIST (Xiao, Rasul, Vollgraf, 2017; arXiv:1708.07747): IDX files, packed with gzip or not."""

from __future__ import annotations

import gzip
import hashlib
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from engine.data._obtain import Remote, download, locked
from engine.data.base import DataError, DataSource, Source, Split, Splits

OWNER = "Zalando Research"
LARGEST = 1 << 27  # bytes of an unpacked file; the images for training are 47 MB
CONTENT_MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}
"""Of the unpacked files: Debian's are packed anew, so the checksums of the published .gz do not fit them."""


@dataclass(frozen=True)
class FashionMnist(DataSource):
    """60 000 + 10 000 grey images, 28x28, 10 classes; FashionMNIST/raw/ under data.root, or Debian's package."""

    # torchvision's layout, and where Debian's package dataset-fashion-mnist puts the files.
    found_at: ClassVar[tuple[str, ...]] = ("FashionMNIST/raw", "/usr/share/datasets/fashion-mnist")

    def load(self, source: Source) -> Splits:
        """Read the four IDX files from `data.root`, else from Debian's package, else download them."""
        folder = _folder(source)
        return Splits(train=_split(folder, "train", source), test=_split(folder, "t10k", source), classes=10)


def _folder(source: Source) -> Path:
    own, *others = (source.root / place for place in FashionMnist.found_at)
    for folder in (own, *others):
        if all(_find(folder, name) for name in CONTENT_MD5):
            return folder
    from torchvision import datasets

    for name, checksum in datasets.FashionMNIST.resources:
        if _find(own, name.removesuffix(".gz")):
            continue
        remote = Remote(datasets.FashionMNIST.mirrors[0] + name, OWNER, checksum)
        with locked(own, remote, source):
            if not (own / name).exists():  # no other process was quicker
                download(remote, own / name, source)
    return own


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _split(folder: Path, part: str, source: Source) -> Split:
    images = _idx(folder, f"{part}-images-idx3-ubyte", source)
    labels = _idx(folder, f"{part}-labels-idx1-ubyte", source)
    if len(images) != len(labels):
        raise DataError(
            f"{folder}: {len(images)} images of '{part}', but {len(labels)} labels", "get all four files again"
        )
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels.astype(np.int64)))


def _idx(folder: Path, name: str, source: Source) -> np.ndarray[Any, Any]:
    """The array of an IDX file: two zero bytes, type 8 (unsigned byte), rank, sizes as big-endian int32, values."""
    path = _find(folder, name) or folder / name
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read(LARGEST + 1)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged gzip file: {error}", "delete it to have it fetched again") from None
    if len(content) > LARGEST:
        raise DataError(f"{path}: more than {LARGEST} bytes when unpacked", "delete it to have it fetched again")
    if source.verify and (found := hashlib.md5(content, usedforsecurity=False).hexdigest()) != CONTENT_MD5[name]:
        raise DataError(
            f"{path}: wrong checksum: MD5 of its content is {found}, expected {CONTENT_MD5[name]}",
            "delete it to have it fetched again, or set data.verify = false to take it as it is",
        )
    rank = 3 if "idx3" in name else 1
    start = 4 + 4 * rank
    shape = struct.unpack(f">{rank}I", content[4:start]) if len(content) >= start else ()
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) != start + math.prod(shape):
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes of rank {rank}", "delete it to have it fetched again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
