"""Writes tiny data sets in the real formats of the archives that the engine reads.

The images are class-coloured noise, so that a network can learn them. Every writer returns what it wrote, as arrays.
"""

from __future__ import annotations

import gzip
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from PIL import Image


class Written(NamedTuple):
    """Where it lies, and images [n, C, H, W] uint8 with labels [n] in the order of the files."""

    folder: Path
    train_images: np.ndarray[Any, Any]
    train_labels: np.ndarray[Any, Any]
    test_images: np.ndarray[Any, Any]
    test_labels: np.ndarray[Any, Any]


def pictures(labels: np.ndarray[Any, Any], channels: int, size: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Images [n, channels, size, size] uint8: a pattern per class under noise."""
    patterns = np.random.default_rng(1).integers(40, 216, (int(labels.max()) + 1, channels, size, size))
    noise = np.random.default_rng(seed).integers(-40, 41, (len(labels), channels, size, size))
    return np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8)


class _Python2Pickler(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Pickles as Python 2 did: protocol 2, byte strings, numpy's old module names."""

    dispatch: ClassVar[dict[type, Any]] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _string(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = _string

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)


def _dump(content: dict[str, Any], path: Path) -> None:
    with open(path, "wb") as file:
        _Python2Pickler(file, protocol=2).dump(content)


def _labels(count: int, classes: int) -> np.ndarray[Any, Any]:
    return np.arange(count) % classes


def write_cifar10(root: Path, per_batch: int = 20, packed: bool = False) -> Written:
    """cifar-10-batches-py/ with five batches and a test batch of `per_batch` images; `packed`: only the .tar.gz."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = []
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        labels = _labels(per_batch, 10)
        images = pictures(labels, 3, 32, seed=number)
        names = [f"image_{index}.png" for index in range(per_batch)]
        batch = {
            "batch_label": name,
            "labels": labels.tolist(),
            "data": images.reshape(per_batch, 3072),
            "filenames": names,
        }
        _dump(batch, folder / name)
        parts.append((images, labels))
    _dump({"num_cases_per_batch": per_batch, "label_names": [f"class{k}" for k in range(10)]}, folder / "batches.meta")
    written = Written(
        folder, np.concatenate([i for i, _ in parts[:5]]), np.concatenate([y for _, y in parts[:5]]), *parts[5]
    )
    return _packed(written, root / "cifar-10-python.tar.gz") if packed else written


def write_cifar100(root: Path, train: int = 200, test: int = 100, packed: bool = False) -> Written:
    """cifar-100-python/ with `train` and `test` images; `packed`: only the .tar.gz."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    parts = []
    for seed, (name, count) in enumerate({"train": train, "test": test}.items()):
        fine = _labels(count, 100)
        images = pictures(fine, 3, 32, seed)
        batch = {
            "filenames": [f"image_{index}.png" for index in range(count)], "batch_label": f"{name} batch 1 of 1",
            "fine_labels": fine.tolist(), "coarse_labels": (fine // 5).tolist(), "data": images.reshape(count, 3072),
        }  # fmt: skip
        _dump(batch, folder / name)
        parts.append((images, fine))
    _dump({"fine_label_names": [f"fine{k}" for k in range(100)]}, folder / "meta")
    written = Written(folder, *parts[0], *parts[1])
    return _packed(written, root / "cifar-100-python.tar.gz") if packed else written


def _packed(written: Written, archive: Path) -> Written:
    with tarfile.open(archive, "w:gz") as tarred:
        tarred.add(written.folder, arcname=written.folder.name)
    for file in written.folder.iterdir():
        file.unlink()
    written.folder.rmdir()
    return written


def write_fashion_mnist(root: Path, train: int = 60, test: int = 20, packed: bool = True) -> Written:
    """FashionMNIST/raw/ with the four IDX files, packed with gzip or not."""
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    parts = []
    for seed, (name, count) in enumerate({"train": train, "t10k": test}.items()):
        labels = _labels(count, 10)
        images = pictures(labels, 1, 28, seed)
        _idx(folder / f"{name}-images-idx3-ubyte", images[:, 0], packed)
        _idx(folder / f"{name}-labels-idx1-ubyte", labels.astype(np.uint8), packed)
        parts.append((images, labels))
    return Written(folder, *parts[0], *parts[1])


def _idx(path: Path, array: np.ndarray[Any, Any], packed: bool) -> None:
    content = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 1))
    else:
        path.write_bytes(content)


def write_tiny_imagenet(root: Path, classes: int = 4, train: int = 5, test: int = 2, packed: bool = False) -> Written:
    """tiny-imagenet-200/ with `train` and `test` JPEGs a class; `packed`: only the .zip. The images returned are those
    before compression, 64x64, in ascending order of class."""
    folder = root / "tiny-imagenet-200"
    names = [f"n{10_000_000 + 37 * k:08d}" for k in range(classes)]
    labels = np.repeat(np.arange(classes), train), np.repeat(np.arange(classes), test)
    images = [np.repeat(np.repeat(pictures(part, 3, 8, seed), 8, 2), 8, 3) for seed, part in enumerate(labels)]
    for index, label in enumerate(labels[0]):
        path = folder / "train" / names[label] / "images" / f"{names[label]}_{index % train}.JPEG"
        _jpeg(path, images[0][index])
    lines = []
    for index, label in enumerate(labels[1]):
        _jpeg(folder / "val" / "images" / f"val_{index}.JPEG", images[1][index])
        lines.append(f"val_{index}.JPEG\t{names[label]}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in reversed(names)))
    if packed:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        with zipfile.ZipFile(root / "tiny-imagenet-200.zip", "w") as archive:
            for file in files:
                archive.write(file, file.relative_to(root))
        for file in files:
            file.unlink()
        for inner in sorted(folder.rglob("*"), reverse=True):
            inner.rmdir()
        folder.rmdir()
    return Written(folder, images[0], labels[0], images[1], labels[1])


def _jpeg(path: Path, image: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.transpose(1, 2, 0)).save(path, "JPEG", quality=95)


def write_folder(
    root: Path, classes: int = 3, train: int = 4, test: int = 2, parts: tuple[str, str] = ("train", "test")
) -> Written:
    """ImageFolder's layout: <part>/<class>/*.png with 12x12 pixels."""
    labels = np.repeat(np.arange(classes), train), np.repeat(np.arange(classes), test)
    images = [pictures(part, 3, 12, seed) for seed, part in enumerate(labels)]
    for name, pixels, numbers in zip(parts, images, labels, strict=True):
        for index, label in enumerate(numbers):
            path = root / name / f"class{label}" / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[index].transpose(1, 2, 0)).save(path)
    return Written(root, images[0], labels[0], images[1], labels[1])


def write_npz(
    path: Path, classes: int = 3, train: int = 30, test: int = 9, channels: int = 3, size: int = 8
) -> Written:
    """An .npz with x_train [n, C, H, W], y_train, x_test and y_test."""
    labels = _labels(train, classes), _labels(test, classes)
    images = [pictures(part, channels, size, seed) for seed, part in enumerate(labels)]
    np.savez(path, x_train=images[0], y_train=labels[0], x_test=images[1], y_test=labels[1])
    return Written(path, images[0], labels[0], images[1], labels[1])
