"""Reads pickled containers and arrays without unpickling: the machine below knows data and nothing that could run.

CIFAR's official archives are pickles. A pickle is a program; `pickle.Unpickler` with a list of allowed names still
runs numpy's own functions on whatever a stranger wrote, and makes room for whatever sizes he claims. Here an array is
made from its bytes by us, every opcode that is not needed is unknown, and what comes of it is bounded by the size of
the file and by MAX_READS.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

DTYPES = ("u1", "i1", "i2", "i4", "i8", "f4", "f8")
MAX_READS = 1_000_000
"""Of an opcode or of what belongs to it; CIFAR-100's training batch has 450 000."""
REFUSED = "it asks for {}.{}, which is no part of an array"


def load(data: bytes) -> Any:
    """What `data` pickles: dicts, lists, tuples, numbers, strings, arrays; any exception if it is something else."""
    return _plain(_Machine(_Counted(data), encoding="bytes").load())  # as Python 2 has written them


class _Counted(io.BytesIO):
    """A file that can be read only so many times."""

    left = MAX_READS

    def read(self, size: int | None = -1) -> bytes:
        self.left -= 1
        if not self.left:
            raise pickle.UnpicklingError("it goes on and on")
        return super().read(size)


class _Dtype:
    def __init__(self, code: str | bytes, *_: object) -> None:
        code = code.decode() if isinstance(code, bytes) else code
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"an array of type {code!r:.60} is no images")
        self.code = code


class _Array:
    """An array to be: `state` is numpy's own (version, shape, type, column-major, bytes)."""

    state: tuple[Any, ...] = ()

    def array(self) -> np.ndarray[Any, Any]:
        _, shape, dtype, by_columns, data = self.state
        array = np.frombuffer(data, dtype.code)
        if math.prod(shape) != len(array) or min(shape, default=1) < 0:
            raise pickle.UnpicklingError(f"{len(array)} values are no array {list(shape)}")
        return array.reshape(shape, order="F" if by_columns else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _frombuffer(data: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    made = _Array()
    made.state = (1, shape, dtype, order == "F", data)
    return made


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes as Python 3 writes them for Python 2. No other codec: some compress, some are looked up by import."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(REFUSED.format("codecs", encoding))
    return text.encode("latin1")


def _names() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): None, ("numpy", "dtype"): _Dtype, ("_codecs", "encode"): _encode,
    }  # fmt: skip
    for core in ("numpy.core", "numpy._core"):  # numpy 1's and numpy 2's
        names[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        names[f"{core}.numeric", "_frombuffer"] = _frombuffer
    return names


class _Machine(pickle._Unpickler):
    """Python's own unpickler (the one in C makes room for any memo index) with few opcodes."""

    stack: list[Any]
    read: Callable[[int], bytes]
    append: Callable[[Any], None]
    names = _names()
    dispatch: ClassVar[dict[int, Any]] = {
        code: function
        for code, function in pickle._Unpickler.dispatch.items()
        if bytes([code]) not in (
            pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.PERSID, pickle.BINPERSID, pickle.EXT1,
            pickle.EXT2, pickle.EXT4, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EMPTY_SET, pickle.FROZENSET,
            pickle.ADDITEMS,
        )
    }  # fmt: skip

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:
            raise pickle.UnpicklingError(f"opcode or memo {error} is not known here") from None

    def find_class(self, module: str, name: str) -> Any:
        """The few names that an array needs, as ours; UnpicklingError for any other."""
        try:
            return self.names[module, name]
        except KeyError:
            raise pickle.UnpicklingError(REFUSED.format(module, name)) from None

    def load_build(self) -> None:
        state = self.stack.pop()
        made = self.stack[-1]
        if isinstance(made, _Array):
            made.state = tuple(state)
        elif not isinstance(made, _Dtype) or state[1] in (">", b">"):
            raise pickle.UnpicklingError("it changes something that is no array")

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def load_frame(self) -> None:
        self.read(8)  # a frame is a hint how much to read at once

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _plain(value: Any) -> Any:
    """`value` with the arrays of a dict made; they lie nowhere else in a batch."""
    if isinstance(value, dict):
        return {key: part.array() if isinstance(part, _Array) else part for key, part in value.items()}
    return value
