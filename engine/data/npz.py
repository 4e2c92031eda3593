"""A NumPy archive with the arrays x_train, y_train, x_test and y_test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from engine.data._arrays import read_npz
from engine.data.base import DataError, DataSource, Source, Split, Splits
from engine.options import option

KEYS = ("x_train", "y_train", "x_test", "y_test")
SHAPES = "[n, H, W], [n, H, W, C] or [n, C, H, W], with C = 1 or 3"


@dataclass(frozen=True)
class Npz(DataSource):
    """Your own arrays: data.path, an .npz with x_train, y_train, x_test, y_test; uint8 images, labels from 0."""

    needs_path: ClassVar[bool] = True
    path: str = option("", help="the .npz file; a relative one is looked for in data.root")

    def load(self, source: Source) -> Splits:
        """Images as NHW, NHWC or NCHW; nothing is unpickled."""
        path = source.root / Path(self.path).expanduser()
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would block, a device never end
            raise DataError(f"{path}: is no regular file", "set data.path to an .npz file")
        try:
            arrays = read_npz(path, KEYS)
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file", "set data.path to an .npz file") from None
        labels = {part: _labels(arrays[f"y_{part}"], f"{path}: y_{part}") for part in ("train", "test")}
        splits = {
            part: Split(_images(arrays[f"x_{part}"], f"{path}: x_{part}"), labels[part]) for part in ("train", "test")
        }
        for part, split in splits.items():
            if len(split.images) != len(split.labels):
                raise DataError(
                    f"{path}: {len(split.images)} images in x_{part}, but {len(split.labels)} labels in y_{part}",
                    "one label an image",
                )
        classes = int(torch.cat(list(labels.values())).max()) + 1
        return Splits(train=splits["train"], test=splits["test"], classes=classes)


def _images(array: np.ndarray[Any, Any], where: str) -> Tensor:
    if array.dtype != np.uint8:
        raise DataError(
            f"{where} is {array.dtype}, expected uint8", "scale grey levels to 0..255, round, and astype('uint8')"
        )
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in (1, 3) and array.shape[3] in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    if array.ndim != 4 or array.shape[1] not in (1, 3):
        raise DataError(f"{where} has shape {list(array.shape)}, expected {SHAPES}", "one image a row, not flattened")
    return torch.from_numpy(np.ascontiguousarray(array))


def _labels(array: np.ndarray[Any, Any], where: str) -> Tensor:
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{where} is {array.dtype}, expected integers from 0", "one class number an image, not one-hot")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 or len(array) == 0 or array.min() < 0:
        raise DataError(
            f"{where} has shape {list(array.shape)}, expected [n] with class numbers from 0",
            "one class number an image",
        )
    return torch.from_numpy(array.astype(np.int64))
