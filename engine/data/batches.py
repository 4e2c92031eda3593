"""Training batches, cropped and flipped on the device, where the whole split lies as one uint8 tensor if it fits.

One that does not fit stays where it is, and each batch is sent over as uint8 while the device computes: no worker
processes either way, and the same batches.

The order is a function of (seed, epoch) and the augmentation of (seed, epoch, step): a resumed epoch continues with
the batches that the interrupted one would have had, and the runs of a pair see the same images. Both are
drawn on the CPU, so that they are the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from engine.data.base import Split
from engine.randomness import generator
from engine.step import MIN_BATCH, Batch

SHARE = 0.25
"""Of a GPU's free memory that the images of a split may take."""


def fits(images: Tensor, device: torch.device) -> bool:
    """Whether `images` are small enough to lie on `device` all the time. They always are where they lie already."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= SHARE * free


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1]: what every network is fed, in training and in evaluation."""
    return images.to(torch.float32) / 255


def steps_an_epoch(images: int, batch_size: int) -> int:
    """Batches of `images`. The last, incomplete one is kept unless it has fewer than 3 images."""
    full, rest = divmod(images, batch_size)
    return full + (rest >= MIN_BATCH)


class Batches:
    """A training split cut into shuffled, augmented batches."""

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        crop: int,
        padding: Literal["zeros", "reflect"],
        flip: bool,
        seed: int,
        device: torch.device | str,
        resident: bool | None = None,
    ) -> None:
        """Crop at random after padding by `crop` pixels with `padding`; mirror at random if `flip`.

        `resident`: keep the images on `device`, or stream them; None: as `fits` says.
        ValueError for a reflection wider than the image, or no batch at all.
        """
        height = split.images.shape[2]
        if padding == "reflect" and crop >= height:
            raise ValueError(
                f"data.crop = {crop} cannot reflect images of {height} pixels; expected at most {height - 1}"
            )
        self._device = torch.device(device)
        self._resident = fits(split.images, self._device) if resident is None else resident
        # channels last: a pixel is one lookup, and the batch comes out in the layout that convolutions like best
        images = split.images.permute(0, 2, 3, 1)
        self._images = images.to(self._device).contiguous() if self._resident else images
        self._labels = split.labels.to(self._device)
        self._batch_size, self._crop, self._reflect, self._flip = batch_size, crop, padding == "reflect", flip
        self._seed = seed
        if len(self) == 0:
            raise ValueError(f"{len(split)} training images make no batch; expected {MIN_BATCH} or more")

    def __len__(self) -> int:
        """Steps an epoch."""
        return steps_an_epoch(len(self._labels), self._batch_size)

    def epoch(self, number: int, skip: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number` from step `skip` (counted from 0) on; x is laid out channels-last."""
        order = torch.randperm(len(self._labels), generator=generator("cpu", self._seed, "order", number))
        there = order.to(self._device)
        for step in range(skip, len(self)):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            if self._resident:
                images = self._augmented(self._images, there[part], number, step)
            else:
                some = self._sent(self._images[order[part]].contiguous())
                images = self._augmented(some, torch.arange(len(some), device=self._device), number, step)
            yield Batch(to_float(images).permute(0, 3, 1, 2), self._labels[there[part]], there[part])

    def _sent(self, tensor: Tensor) -> Tensor:
        """On the device. From pinned memory, so that the host need not wait for what that computes."""
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

    def _augmented(self, images: Tensor, index: Tensor, epoch: int, step: int) -> Tensor:
        """uint8 [B, H, W, C] of `images` at `index` [B].

        Each output pixel is looked up where the crop and the mirror put it in the original: no padded copy is made.
        """
        if not (self._crop or self._flip):
            return images[index]
        draw, device = generator("cpu", self._seed, "augment", epoch, step), self._device
        shift = self._sent(torch.randint(-self._crop, self._crop + 1, (2, len(index)), generator=draw))
        mirror = self._sent(torch.rand(len(index), generator=draw) < 0.5)
        height, width = images.shape[1:3]
        rows = shift[0, :, None] + torch.arange(height, device=device)
        columns = torch.arange(width, device=device).expand(len(index), width)
        if self._flip:
            columns = torch.where(mirror[:, None], columns.flip(1), columns)
        columns = shift[1, :, None] + columns
        if self._reflect:
            rows, columns = _reflected(rows, height), _reflected(columns, width)
            return images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
        return images[index[:, None, None], rows[:, :, None], columns[:, None, :]] * inside[..., None]


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside [0, size) mirrored at the border pixels, which are not repeated."""
    return size - 1 - (size - 1 - positions.abs()).abs()


def _within(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)
