"""Weights of other people, for `standard.weights`: safetensors or, by explicit flag, what torch.save wrote.

Such a file is a pickle, and a pickle is a program. It is read with torch.load(weights_only=True), which builds tensors
and plain containers and refuses the rest; even so only where the recipe says so.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.checkpoint import CheckpointError, load, pick, restore

PICKLES = (".pt", ".pth", ".pth.tar", ".bin", ".ckpt", ".pkl", ".pickle", ".t7")
PREFIXES = ("model.", "module.", "_orig_mod.")  # ours; of DataParallel; of torch.compile
WITHIN = ("state_dict", "model_state_dict", "model", "net")  # where training scripts keep them
TO_SAFETENSORS = "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors')"


def load_weights(network: nn.Module, path: Path, *, pickled: bool) -> None:
    """Load the weights at `path` into `network`, strictly: a checkpoint of ours (its M'), any .safetensors or, if
    `pickled` allows it, what torch.save wrote. CheckpointError says what is wrong with it.
    """
    if not _is_pickle(path):
        tensors, _ = load(path)
    elif pickled:
        tensors = _unpickled(path)
    else:
        raise CheckpointError(
            f"{path}: is a pickle, and a pickle can run code: convert it where you trust it, "
            f"{TO_SAFETENSORS}, or set standard.torch_weights = true to have only tensors read from it"
        )
    restore(network, _fitting(tensors, network.state_dict().keys()), path)


def _is_pickle(path: Path) -> bool:
    """True for a .pt and the like, by name or by content."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        begins = file.read(9)
    safe = begins[8:] == b"{"  # behind the length of its header
    return not safe and (path.name.endswith(PICKLES) or begins.startswith((b"PK\x03\x04", b"\x80")))


def _unpickled(path: Path) -> dict[str, Tensor]:
    try:
        _check_size(path)
        with warnings.catch_warnings(action="ignore"):  # of odd protocols and the like: the file is only read
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged pickles raise anything; torch's own advice is to trust the file
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else f"{type(error).__name__}: {str(error).splitlines()[:1]}"[:200]
        raise CheckpointError(f"{path}: more than tensors, or damaged ({reason})") from None
    if isinstance(content, dict):
        content = next((content[name] for name in WITHIN if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a state_dict, found a {type(content).__name__}")
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _check_size(path: Path) -> None:
    """ValueError for a zip that grows when it is unpacked: torch.save does not compress."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            total = sum(member.file_size for member in zipped.infolist())
        if total > path.stat().st_size:
            raise ValueError(f"{total} bytes when unpacked")


def _fitting(tensors: dict[str, Tensor], wanted: Set[str]) -> dict[str, Tensor]:
    """`tensors`, without the prefix that hinders them from being those of `wanted`."""
    found = [tensors]
    for candidate in found:
        if candidate.keys() == wanted:
            return candidate
        if len(found) < 20:
            found += [part for prefix in PREFIXES if (part := pick(candidate, prefix))]
    return found[1] if len(found) > 1 else tensors  # the error is about these
