"""Arrays of an .npz, looked at before they are unpacked: a small file may claim to hold more than any memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.base import DataError

MAX_RATIO, SLACK = 200, 1 << 26
"""Unpacked, all members together are at most this many times as large as the file, and this many bytes."""
HINT = "write it with np.savez, without objects"


def read_npz(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays `keys` of the .npz at `path`; nothing is unpickled. Raises DataError, OSError if it cannot be read."""
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            missing = [key for key in keys if f"{key}.npy" not in archive.namelist()]
            if missing:
                raise DataError(f"{path}: has no {', '.join(missing)}", f"np.savez it with {', '.join(keys)}")
            members = {key: archive.getinfo(f"{key}.npy") for key in keys}
            total = sum(member.file_size for member in members.values())
            if total > SLACK + MAX_RATIO * path.stat().st_size:
                raise DataError(f"{path}: {total} bytes when unpacked, more than any images", HINT)
            return {key: _array(archive, member) for key, member in members.items()}
    except (ValueError, TypeError, EOFError, OverflowError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: not an .npz of plain arrays: {error}", HINT) from None
    except (zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not an .npz of plain arrays: {error}", HINT) from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """The array of one member, whose header is held against the member's size first."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{member.filename} is of version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        try:
            shape, _, dtype = read(file)
        except Exception as error:  # numpy parses it as Python, which can fail in any way
            raise ValueError(f"{member.filename}: {str(error)[:200]}") from None
        if dtype.hasobject:
            raise ValueError(f"{member.filename} holds objects")
        if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename} is not as large as {list(shape)} {dtype}")
    with archive.open(member) as file:
        array: np.ndarray[Any, Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array
