"""The data set of a recipe: found, read, checked, and cut into training, validation and test split."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from engine import options
from engine.data.base import DataError, DataSource, Source, Split, Splits
from engine.data.stratify import spread
from engine.recipe import Data, Recipe, own_options

MIN_TRAIN, MIN_SIZE = 3, 8  # L_TP compares 3 images or more; the networks halve the image twice or more


def load(recipe: Recipe) -> Splits:
    """The splits that `recipe` trains, chooses `best` and is tested on.

    `validation` is the data set's own if it has one, else a fixed stratified share of the training split; it is
    None if the recipe chooses `best` on the test set. None of it depends on the run's seed. Raises DataError.
    """
    data = recipe.data
    entry = options.catalog("DataSource")[data.dataset]
    chosen: DataSource = options.load_class(entry)(**own_options(recipe, "data"))
    try:
        splits = chosen.load(Source(_root(data), data.verify, data.download))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise DataError(f"{data.dataset}: {where}{error.strerror or error}", "the data set must be readable") from None
    _check(splits, data.dataset)
    return _divide(splits, data, wanted=recipe.eval.select == "validation")


def subset(split: Split, n: int) -> Tensor:
    """Indices [min(n, len(split))] int64, ascending, of a fixed subset spread over the classes; n = 0: all."""
    if n == 0 or n >= len(split):
        return torch.arange(len(split))
    return spread(split.labels, "subset")[:n].sort().values


def _root(data: Data) -> Path:
    chosen = data.root or os.environ.get("TRAINCTL_DATA")
    if not chosen:
        import platformdirs

        chosen = platformdirs.user_cache_dir("trainctl")
    return Path(chosen).expanduser().absolute()


def _divide(splits: Splits, data: Data, wanted: bool) -> Splits:
    """Hold out a validation split if `wanted` and there is none, and keep `data.train_examples`.

    Both are cut from the two ends of one order, so that the examples kept are the same with and without a hold-out.
    With `train_examples`, the hold-out shrinks with them to the same share of what is used.
    """
    train, validation, keep = splits.train, splits.validation if wanted else None, data.train_examples
    held = 0
    if wanted and validation is None:
        share = data.validation
        held = round(share * len(train))
        held = max(1, min(held, round(keep * share / (1 - share))) if keep else held)
    left = len(train) - held
    if keep > left or left < MIN_TRAIN:
        raise DataError(
            f"{data.dataset}: {left} images are left for training, "
            + (f"but data.train_examples is {keep}" if keep > left else f"expected {MIN_TRAIN} or more"),
            "lower data.train_examples (0: all) or data.validation",
        )
    if held or keep:
        order = spread(train.labels, "train")
        train = _take(splits.train, order[len(order) - (keep or left) :])
        validation = _take(splits.train, order[:held]) if held else validation
    return replace(splits, train=train, validation=validation)


def _take(split: Split, indices: Tensor) -> Split:
    kept = indices.sort().values
    return Split(split.images[kept], split.labels[kept])


def _check(splits: Splits, name: str) -> None:
    """DataError if a split is not what the engine works on."""
    parts = {"training": splits.train, "test": splits.test, "validation": splits.validation}
    for part, split in parts.items():
        fault = _fault(split, splits) if split is not None else ""
        if fault:
            raise DataError(
                f"{name}: the {part} images {fault}",
                f"images are uint8 [n, 1 or 3, H, H] with H of {MIN_SIZE} or more, labels int64 [n] below the classes",
            )


def _fault(split: Split, splits: Splits) -> str:
    images, labels, shape = split.images, split.labels, list(splits.train.images.shape[1:])
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        return f"are {images.dtype} {list(images.shape)}, expected uint8 [n, 1 or 3, H, W]"
    if images.shape[2] != images.shape[3] or images.shape[2] < MIN_SIZE:
        return f"have {images.shape[2]}x{images.shape[3]} pixels, expected a square of {MIN_SIZE} or more"
    if list(images.shape[1:]) != shape:
        return f"are {list(images.shape[1:])}, but those for training {shape}"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1] or len(labels) == 0:
        return f"[{len(images)}] need as many int64 labels, found {labels.dtype} {list(labels.shape)}"
    if int(labels.min()) < 0 or int(labels.max()) >= splits.classes:
        return f"have labels {int(labels.min())}..{int(labels.max())}, expected 0..{splits.classes - 1}"
    return ""
