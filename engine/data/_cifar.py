"""The Python archives of CIFAR-10 and CIFAR-100: pickled batches of 3x32x32 images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data._obtain import Remote, check_md5, obtain_archive
from engine.data._pickled import load
from engine.data.base import DataError, Source, Split, Splits

OWNER = "University of Toronto"
LARGEST = 1 << 29  # bytes; CIFAR-100's training batch has 155 MB


@dataclass(frozen=True)
class Archive:
    """What tells the two archives apart. `name` is that of torchvision's class, which has the address and checksums."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_key: str
    classes: int


def read(archive: Archive, source: Source) -> Splits:
    """Read the archive under `source.root`, unpacking or downloading it first if need be.

    torchvision takes seconds to import, so it is asked only if something is to be checked or fetched.
    """
    folder = source.root / archive.folder
    if not folder.is_dir():
        published = _published(archive)
        folder = obtain_archive(Remote(published.url, OWNER, published.tgz_md5), source, archive.folder)
    for name in archive.train + archive.test:
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name} is missing",
                f"put it there, or delete {folder} to have the archive unpacked or fetched again",
            )
    if source.verify:
        published = _published(archive)
        for name, checksum in published.train_list + published.test_list:
            check_md5(folder / name, checksum)
    return Splits(
        train=_split([folder / name for name in archive.train], archive),
        test=_split([folder / name for name in archive.test], archive),
        classes=archive.classes,
    )


def _published(archive: Archive) -> Any:
    from torchvision import datasets

    return getattr(datasets, archive.name)


def _split(files: list[Path], archive: Archive) -> Split:
    images, labels = zip(*(_batch(file, archive.label_key) for file in files), strict=True)
    return Split(
        torch.from_numpy(np.concatenate(images).reshape(-1, 3, 32, 32)),
        torch.from_numpy(np.concatenate(labels)),
    )


def _batch(file: Path, label_key: str) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Images [n, 3072] uint8 and labels [n] int64 of one pickled batch."""
    hint = "get the official archive again"
    if file.stat().st_size > LARGEST:
        raise DataError(f"{file}: larger than {LARGEST} bytes, which no CIFAR batch is", hint)
    try:
        content = load(file.read_bytes())
        content = {k.decode() if isinstance(k, bytes) else k: value for k, value in dict(content).items()}
        images, labels = content["data"], content[label_key]
        labels = labels.tolist() if isinstance(labels, np.ndarray) else labels
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: not a CIFAR batch: expected a dict with 'data' and '{label_key}' ({error})", hint
        ) from None
    except Exception as error:  # damaged pickles raise anything
        raise DataError(f"{file}: cannot be read as a pickled CIFAR batch: {str(error)[:300]}", hint) from None
    if not isinstance(labels, list) or any(type(label) is not int or not 0 <= label < 2**31 for label in labels):
        raise DataError(f"{file}: expected '{label_key}' as a list of class numbers", hint)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        raise DataError(f"{file}: expected 'data' as uint8 [{len(labels)}, 3072], one row a label", hint)
    return images, np.array(labels, dtype=np.int64)
