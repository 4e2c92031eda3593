"""The Python archives of CIFAR-10 and CIFAR-100: pickled batches of 3x32x32 images."""

from __future__ import annotations

import codecs
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.data._obtain import Remote, check_md5, obtain_archive
from engine.data.base import DataError, Source, Split, Splits

OWNER = "University of Toronto"


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
    try:
        with open(file, "rb") as stream:
            content = _ArrayUnpickler(stream, encoding="latin1").load()  # written by Python 2
        content = {k.decode() if isinstance(k, bytes) else k: value for k, value in dict(content).items()}
        images, labels = content["data"], np.asarray(content[label_key], dtype=np.int64)
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: not a CIFAR batch: expected a dict with 'data' and '{label_key}' ({error})", hint
        ) from None
    except Exception as error:  # damaged pickles raise anything
        raise DataError(f"{file}: cannot be read as a pickled CIFAR batch: {error}", hint) from None
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != (len(labels), 3072):
        raise DataError(f"{file}: expected 'data' as uint8 [{len(labels)}, 3072], one row a label", hint)
    return images, labels


def _array_globals() -> dict[tuple[str, str], Any]:
    """What a pickled array names: under numpy 1's and numpy 2's module names, and bytes as Python 2 wrote them."""
    array = np.zeros(1)
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,
    }
    for core in ("numpy.core", "numpy._core"):
        allowed[f"{core}.multiarray", "_reconstruct"] = array.__reduce_ex__(2)[0]
        allowed[f"{core}.numeric", "_frombuffer"] = array.__reduce_ex__(5)[0]
    return allowed


class _ArrayUnpickler(pickle.Unpickler):
    """Reads plain containers and numpy arrays, and calls nothing else: a pickle of a stranger could run any code."""

    allowed = _array_globals()

    def find_class(self, module: str, name: str) -> Any:
        """The few callables that rebuild an array; UnpicklingError for any other."""
        try:
            return self.allowed[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no part of an array") from None
