"""Checkpoints: tensors as safetensors, everything else as JSON in the file's header. No pickle, so nothing in a
checkpoint can run. One file, written whole or not at all, so tensors and state can never disagree.

A checksum in the header tells whether a file is still what was written. What a run resumes from is kept in two
generations, so that a damaged file costs the steps since the one before, not the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.rundir import replace

MAX_HEADER = 4 << 20
"""Bytes; that of a WideResNet-34-10 with its momentum and another network has 0.1 MB."""


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or does not fit the network it is loaded into; `hint` says what to do."""

    hint = ""


def save(path: Path, tensors: dict[str, Tensor], state: dict[str, Any], *, keep: bool = False) -> None:
    """Write `tensors` and the JSON-able `state` to `path`; synced and renamed into place.

    With `keep` the file that stood there becomes `previous(path)`.
    """
    from safetensors.torch import save as to_bytes

    path.parent.mkdir(exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    data = to_bytes(plain, metadata={"format": "trainctl-2", "state": text, "checksum": _checksum(plain, text)})
    if keep and path.exists():
        _keep(path)
    replace(path, data)


def previous(path: Path) -> Path:
    """Where the generation before the checkpoint at `path` is kept."""
    return path.with_name(f"{path.name}.previous")


def _keep(path: Path) -> None:
    """Make `path` its own generation before. It stays where it is, so there is one at every moment."""
    link = path.with_name(f".{path.name}.{os.getpid()}.kept")
    with suppress(OSError):  # no links on this file system: then there is one generation
        link.unlink(missing_ok=True)
        link.hardlink_to(path)
        link.replace(previous(path))
        link.unlink(missing_ok=True)  # it is still there if both name one file: then a rename does nothing


def load_newest(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str] | None:
    """(tensors, state, warning) of `path`, or if it is damaged of the generation before it; None if there is neither.

    A damaged one is renamed, so that it can be looked at and takes nobody's place. CheckpointError if none of them can
    be read.
    """
    errors: list[CheckpointError] = []
    for generation in (path, previous(path)):
        if not generation.exists():
            continue
        try:
            tensors, state = load(generation)
        except CheckpointError as error:
            errors.append(error)
        else:
            if errors:  # out of the way: it must not become the generation before the next one
                path.replace(path.with_name(f"{path.name}.damaged"))
            return tensors, state, f"{errors[0]}; the one before it is used" if errors else ""
    if errors:
        errors[0].hint = "`trainctl retry` begins the run anew; what it has is kept in attempts/"
        raise errors[0]
    return None


def _checksum(tensors: dict[str, Tensor], state: str) -> str:
    """SHA-256 over the state, and over name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, state) of the checkpoint at `path`; CheckpointError says what is wrong with it.

    Any .safetensors will do; the state of one that is none of ours is {}.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            about = file.metadata() or {}
        state = json.loads(about.get("state", "{}"), parse_constant=_no_number)
    except (SafetensorError, OSError, ValueError, RecursionError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error})") from None
    if "checksum" in about and about["checksum"] != _checksum(tensors, about.get("state", "{}")):
        raise CheckpointError(f"{path}: damaged checkpoint (it is not what was written: its checksum differs)")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: damaged checkpoint (its state is no object)")
    return tensors, state


def _check_header(path: Path) -> None:
    """ValueError for a header that would take long to read, or for no file: a pipe would block."""
    if not path.is_file():
        raise ValueError("it is no regular file")
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes, more than {MAX_HEADER}")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} in its state")


def check_state(state: dict[str, Any], path: Path) -> None:
    """CheckpointError unless `state` says what the engine writes of a run: somebody else may have written it."""
    progress = state.get("progress")
    for table, form in ((state, _STATE), (progress if isinstance(progress, dict) else {}, _PROGRESS)):
        wrong = next((name for name, fine in form.items() if name not in table or not fine(table[name])), None)
        if wrong:
            raise CheckpointError(f"{path}: not a checkpoint of a run: {wrong} is {repr(table.get(wrong))[:60]}")


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """What is taken up inside from the checkpoint at `path` fits, or it is a CheckpointError."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0]
        message = f"{path}: the checkpoint does not fit this run ({type(error).__name__}: {first[:200]})"
        raise CheckpointError(message) from None


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _finite(value: object) -> bool:
    return type(value) in (int, float) and -1e300 < value < 1e300  # type: ignore[operator]


def _best(value: object) -> bool:
    """{}, or which epoch is the best one, by which value and which key."""
    if not isinstance(value, dict) or not value:
        return value == {}
    key = value.get("key")
    compared = isinstance(key, list) and len(key) == 2 and all(map(_finite, key))
    return _count(value.get("epoch")) and _finite(value.get("value")) and compared


_STATE: dict[str, Callable[[Any], bool]] = {
    "recipe": lambda value: isinstance(value, str),
    "rule": lambda value: isinstance(value, str),
    "events": _count,
}
_PROGRESS: dict[str, Callable[[Any], bool]] = {
    "stage": lambda value: value in ("pretrain", "train"),
    "epoch": lambda value: _count(value) and value > 0,
    "batch": _count,
    "step": _count,
    "seconds": lambda value: _finite(value) and value >= 0,
    "examples": _count,
    "sums": lambda value: isinstance(value, dict) and all(map(_finite, value.values())),
    "best": _best,
}


def pick(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def put(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The opposite of `pick`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def restore(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load `tensors` into `network`, strictly."""
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).split("\n\t")[1:2] or [str(error)]
        raise CheckpointError(f"{path}: the checkpoint is of another network: {first[0]}") from None


def optimizer_state(optimizer: torch.optim.Optimizer, names: dict[Tensor, str]) -> dict[str, Tensor]:
    """SGD's momentum buffers by parameter name."""
    buffers = {names[p]: optimizer.state[p].get("momentum_buffer") for p in names if p in optimizer.state}
    return {name: buffer for name, buffer in buffers.items() if buffer is not None}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: dict[Tensor, str], tensors: dict[str, Tensor]) -> None:
    """Put momentum buffers back, in each parameter's own memory layout and on its device. ValueError for one of another
    shape.
    """
    for parameter, name in names.items():
        if name in tensors:
            if tensors[name].shape != parameter.shape:  # one number would be spread over all
                raise ValueError(f"momentum {list(tensors[name].shape)} of {name} {list(parameter.shape)}")
            buffer = torch.empty_like(parameter).copy_(tensors[name])
            optimizer.state[parameter] = {"momentum_buffer": buffer}
