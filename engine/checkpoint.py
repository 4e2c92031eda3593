"""Checkpoints: tensors as safetensors, everything else as JSON in the file's header. No pickle, so nothing in a
checkpoint can run. One file, written whole or not at all, so tensors and state can never disagree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.rundir import replace


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged or does not fit the network it is loaded into."""


def save(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write `tensors` and the JSON-able `state` to `path`; synced and renamed into place."""
    from safetensors.torch import save as to_bytes

    path.parent.mkdir(exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    replace(path, to_bytes(plain, metadata={"format": "trainctl-1", "state": json.dumps(state)}))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, state) of the checkpoint at `path`; CheckpointError says what is wrong with it."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise CheckpointError(f"{path}: there is no such checkpoint")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            state = json.loads((file.metadata() or {}).get("state", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged checkpoint ({error})") from None
    return tensors, state


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
    """Put momentum buffers back, in each parameter's own memory layout and on its device."""
    for parameter, name in names.items():
        if name in tensors:
            buffer = torch.empty_like(parameter).copy_(tensors[name])
            optimizer.state[parameter] = {"momentum_buffer": buffer}
