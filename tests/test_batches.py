"""Batches: the same whatever was skipped, and cropped and flipped as a plain loop would do it."""

from __future__ import annotations

import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.base import Split
from engine.data.batches import Batches, fits, to_float
from engine.randomness import generator


def make_split(count: int, channels: int = 3, size: int = 8) -> Split:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, size, size), generator=draw, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 10)


def make_batches(split, batch_size=4, crop=0, padding="zeros", flip=False, seed=1) -> Batches:
    return Batches(split, batch_size, crop=crop, padding=padding, flip=flip, seed=seed, device="cpu")


def looked_up(image, row, column, padding):
    """The pixel [C] at a position that may lie outside the image."""
    size = image.shape[1]
    if padding == "zeros" and not (0 <= row < size and 0 <= column < size):
        return torch.zeros(image.shape[0], dtype=torch.uint8)
    mirrored = [abs(place) if place < size else 2 * (size - 1) - place for place in (row, column)]
    return image[:, mirrored[0], mirrored[1]]


def by_loop(split, index, crop, padding, flip, seed, epoch, step):
    """Pad, crop, mirror, one image and one pixel at a time, from the same draws."""
    draw = generator("cpu", seed, "augment", epoch, step)
    shift = torch.randint(-crop, crop + 1, (2, len(index)), generator=draw).tolist()
    mirror = (torch.rand(len(index), generator=draw) < 0.5).tolist()
    size = split.images.shape[2]
    out = torch.empty((len(index), *split.images.shape[1:]), dtype=torch.float32)
    for place, number in enumerate(index.tolist()):
        for row in range(size):
            for column in range(size):
                source = size - 1 - column if flip and mirror[place] else column
                pixel = looked_up(split.images[number], row + shift[0][place], source + shift[1][place], padding)
                out[place, :, row, column] = pixel.float() / 255
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize(("crop", "flip"), [(0, False), (0, True), (3, False), (3, True), (7, True)])
def test_augmentation_equals_a_plain_loop(channels, padding, crop, flip):
    split = make_split(10, channels)
    for step, batch in enumerate(make_batches(split, 4, crop, padding, flip).epoch(2)):
        expected = by_loop(split, batch.index, crop, padding, flip, 1, 2, step)
        assert torch.equal(batch.x, expected)
        assert torch.equal(batch.y, split.labels[batch.index])


def test_crop_equals_padding_then_slicing():
    """Against torch's own padding, so that the loop above is not the only judge."""
    split, crop = make_split(6), 2
    for padding, mode in (("zeros", "constant"), ("reflect", "reflect")):
        batch = next(make_batches(split, 6, crop, padding).epoch(1))
        padded = torch.nn.functional.pad(to_float(split.images), (crop,) * 4, mode=mode)
        shift = torch.randint(-crop, crop + 1, (2, 6), generator=generator("cpu", 1, "augment", 1, 0)) + crop
        for place, number in enumerate(batch.index):
            top, left = shift[:, place].tolist()
            assert torch.equal(batch.x[place], padded[number, :, top : top + 8, left : left + 8])


@pytest.mark.parametrize(("crop", "flip"), [(0, False), (3, True)])
def test_streamed_batches_are_the_resident_ones(crop, flip):
    split = make_split(11)
    kept = Batches(split, 4, crop=crop, padding="zeros", flip=flip, seed=1, device="cpu")
    sent = Batches(split, 4, crop=crop, padding="zeros", flip=flip, seed=1, device="cpu", resident=False)
    for one, other in zip(kept.epoch(2, skip=1), sent.epoch(2, skip=1), strict=True):
        assert all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("x", "y", "index"))
        assert one.x.stride() == other.x.stride()


def test_a_split_stays_on_the_host_if_a_gpu_has_no_room_for_it(monkeypatch):
    images = make_split(100).images  # 19 200 bytes
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * images.nbytes, 10**12))
    assert fits(images, torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (4 * images.nbytes - 1, 10**12))
    assert not fits(images, torch.device("cuda"))
    assert fits(images, torch.device("cpu"))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(3, 40), size=st.integers(1, 12), skip=st.integers(0, 12), epoch=st.integers(1, 5))
def test_a_resumed_epoch_goes_on_with_the_same_batches(count, size, skip, epoch):
    batches = make_batches(make_split(count), size, crop=2, flip=True)
    whole = list(batches.epoch(epoch))
    assert len(whole) == len(batches)
    rest = list(batches.epoch(epoch, skip=skip))
    assert len(rest) == max(0, len(whole) - skip)
    for a, b in zip(rest, whole[skip:], strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y) and torch.equal(a.index, b.index)


@pytest.mark.parametrize(("count", "steps", "seen"), [(12, 3, 12), (13, 3, 12), (14, 3, 12), (15, 4, 15), (3, 1, 3)])
def test_every_image_once_and_a_remainder_below_three_is_dropped(count, steps, seen):
    batches = make_batches(make_split(count), 4)
    indices = torch.cat([batch.index for batch in batches.epoch(1)])
    assert len(batches) == steps
    assert len(indices) == len(indices.unique()) == seen


def test_seed_and_epoch_change_order_and_augmentation():
    split = make_split(40)

    def fingerprint(seed, epoch):
        batches = make_batches(split, 40, crop=2, flip=True, seed=seed)
        batch = next(batches.epoch(epoch))
        return tuple(batch.index.tolist()), batch.x[batch.index.argsort()]

    first, again, other_epoch, other_seed = fingerprint(1, 1), fingerprint(1, 1), fingerprint(1, 2), fingerprint(2, 1)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    for other in (other_epoch, other_seed):
        assert first[0] != other[0] and not torch.equal(first[1], other[1])


def test_the_order_is_pinned():
    """Another order would silently change every run that is compared with an earlier one."""
    order = torch.cat([batch.index for batch in make_batches(make_split(100), 10).epoch(1)])
    assert hashlib.sha256(order.numpy().tobytes()).hexdigest()[:16] == "1cfdf2baeff6a717"


def test_global_random_state_is_neither_read_nor_moved():
    split = make_split(20)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = [batch.x for batch in make_batches(split, crop=1, flip=True).epoch(1)]
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(5)
    assert all(torch.equal(a, b.x) for a, b in zip(first, make_batches(split, crop=1, flip=True).epoch(1), strict=True))


def test_batches_are_float_in_unit_range_and_channels_last():
    split = Split(torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 8, 8), torch.arange(3))
    batch = next(make_batches(split, 3).epoch(1))
    assert batch.x.dtype == torch.float32 and batch.x.shape == (3, 3, 8, 8)
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    assert sorted(batch.x[:, 0, 0, 0].tolist()) == pytest.approx([0.0, 128 / 255, 1.0], abs=1e-7)
    assert batch.y.dtype == batch.index.dtype == torch.int64


def test_flips_and_shifts_are_uniform():
    """About half are mirrored, and each of the 5 shifts takes about a fifth."""
    image = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    image[0, 0, 3, 3] = 255
    split = Split(image.expand(2000, 1, 8, 8), torch.zeros(2000, dtype=torch.int64))
    x = next(make_batches(split, 2000, crop=2, flip=True).epoch(1)).x
    rows, columns = (
        x.sum(3).argmax(2).flatten().bincount(minlength=8),
        x.sum(2).argmax(2).flatten().bincount(minlength=8),
    )
    assert rows[1:6].sum() == 2000 and rows[1:6].min() > 330 and rows[1:6].max() < 470
    mirrored = columns[6].item()  # column 4, shifted by 2: only mirrored images reach it
    assert columns[1:7].sum() == 2000 and 140 < mirrored < 260


def test_a_reflection_wider_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"data\.crop = 8 .* at most 7"):
        make_batches(make_split(4), crop=8, padding="reflect")


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match="2 training images make no batch"):
        make_batches(make_split(2), 4)
