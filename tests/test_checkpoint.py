"""Checkpoints that were cut while they were written, or damaged since: a whole one always loads."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine import checkpoint, rundir
from engine.checkpoint import CheckpointError, load, load_newest, previous, save


def tensors(generation: int) -> dict[str, torch.Tensor]:
    return {
        "model.weight": torch.full((3, 4), float(generation)), "model.steps": torch.tensor(generation),
        "model.half": torch.full((5,), generation, dtype=torch.bfloat16), "empty": torch.zeros(0, 3),
    }  # fmt: skip


def written(path: Path, generations: int) -> None:
    for generation in range(1, generations + 1):
        save(path, tensors(generation), {"step": generation}, keep=True)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    written(tmp_path / "last.safetensors", 3)
    for path, generation in ((tmp_path / "last.safetensors", 3), (previous(tmp_path / "last.safetensors"), 2)):
        found, state = load(path)
        assert state == {"step": generation}
        assert {name: tensor.tolist() for name, tensor in found.items()} == {
            name: tensor.tolist() for name, tensor in tensors(generation).items()
        }
        assert found["model.half"].dtype == torch.bfloat16


class Cut(BaseException):
    """The process ends here."""


CUTS = ("open", "half a write", "fsync", "rename", "synced folder")


def cut_at(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the next writing of a file end at `point`, leaving behind what a killed process would."""
    real_fsync, real_replace, real_open = os.fsync, Path.replace, open

    def stop(*_: object, **__: object) -> None:
        raise Cut

    if point == "open":
        monkeypatch.setattr(
            "builtins.open", lambda path, mode="r", *a, **k: stop() if mode == "xb" else real_open(path, mode, *a, **k)
        )
    elif point == "half a write":

        class Torn:
            def __init__(self, path: Path) -> None:
                self.file = real_open(path, "xb")

            def __enter__(self) -> Torn:
                return self

            def __exit__(self, *_: object) -> None:
                self.file.close()

            def write(self, data: bytes) -> None:
                self.file.write(data[: random.randrange(len(data))])
                self.file.flush()
                raise Cut

        monkeypatch.setattr(
            "builtins.open",
            lambda path, mode="r", *a, **k: Torn(path) if mode == "xb" else real_open(path, mode, *a, **k),
        )
    elif point == "fsync":
        monkeypatch.setattr(os, "fsync", stop)
    elif point == "rename":
        monkeypatch.setattr(
            Path, "replace", lambda self, to: stop() if self.suffix == ".tmp" else real_replace(self, to)
        )
    else:
        monkeypatch.setattr(rundir, "sync_folder", stop)
    # A killed process does not tidy up behind itself.
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    assert real_fsync


@pytest.mark.parametrize("point", CUTS)
@pytest.mark.parametrize("attempt", range(20))
def test_cut_while_it_is_written(tmp_path: Path, point: str, attempt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    random.seed(attempt)
    before = attempt % 3  # generations that stood there
    written(path, before)
    with monkeypatch.context() as patch:
        cut_at(point, patch)
        with pytest.raises(Cut):
            save(path, tensors(before + 1), {"step": before + 1}, keep=True)
    found = load_newest(path)
    whole = {before, before + 1} if point == "synced folder" else {before}
    if found is None:
        assert before == 0
        return
    loaded, state, warning = found
    assert state["step"] in whole and warning == ""
    assert torch.equal(loaded["model.weight"], tensors(state["step"])["model.weight"])
    save(path, tensors(9), {"step": 9}, keep=True)  # what was left behind is in nobody's way
    assert load(path)[1] == {"step": 9}


def flipped(data: bytes) -> bytes:
    """One bit of the last tensor's bytes is another."""
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "a bit": flipped,
    "zeros at the end": lambda data: data[:-16] + b"\0" * 16,
    "torn": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "a foreign file": lambda data: b"\x80\x04K\x01." * 50,
    "a header as long as the sky": lambda data: b"\xff" * 8 + data[8:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.safetensors"
    written(path, 2)
    content = DAMAGE[damage](path.read_bytes())
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"last\.safetensors: damaged checkpoint"):
        load(path)
    found = load_newest(path)
    assert found is not None
    _, state, warning = found
    assert state == {"step": 1} and "damaged" in warning and "the one before it is used" in warning
    previous(path).write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged") as told:
        load_newest(path)
    assert "trainctl retry" in told.value.hint


def test_one_of_before_checksums_still_loads(tmp_path: Path) -> None:
    from safetensors.torch import save as to_bytes

    path = tmp_path / "old.safetensors"
    path.write_bytes(to_bytes({"a": torch.ones(2)}, metadata={"format": "trainctl-1", "state": '{"step": 4}'}))
    assert load(path)[1] == {"step": 4}


def test_without_links_there_is_one_generation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(95, "no links here")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    written(tmp_path / "last.safetensors", 2)
    assert not previous(tmp_path / "last.safetensors").exists()
    found = checkpoint.load_newest(tmp_path / "last.safetensors")
    assert found is not None and found[1] == {"step": 2}
