"""Decoding image files to one uint8 tensor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.base import DataError

RESIZING = "bilinear with antialiasing"
ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")  # by content: Pillow starts programs for some others
LARGEST = 1 << 26  # pixels: a file of kilobytes can hold billions


def decode(paths: Sequence[Path], size: int) -> Tensor:
    """RGB images [n, 3, size, size] uint8.

    Each is cut to its largest central square and resized with Pillow's bilinear filter, which smooths when it
    shrinks (the default of torchvision's Resize on such images).
    """
    images = np.empty((len(paths), 3, size, size), np.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow decodes and resizes without holding the interpreter's lock
        for index, pixels in enumerate(pool.map(partial(_decode, size=size), paths)):
            images[index] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(images)


def _decode(path: Path, size: int) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageOps

    if not path.is_file():  # a pipe would block, a device never end
        raise DataError(f"{path}: cannot be read as an image: it is missing or no file", "replace or remove it")
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {LARGEST}")
            return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
    except Exception as error:  # Pillow raises anything at damaged files
        raise DataError(f"{path}: cannot be read as an image: {error}", "replace or remove this file") from None
