"""The gradient of an attack as a CUDA graph: hundreds of kernels, recorded once and launched as one.

An attack asks for the same gradient many times, and on a GPU launching the kernels of a small network takes longer than
they do. A twin (engine/models/fold.py) keeps its weights where they are, so that what was recorded on it stays right
when they change. The first time a graph is looked at beside what it stands for; where the two differ, or where nothing
can be recorded, the attack goes on without, and says so by a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

TOLERANCE = 0.01  # of the gradient's norm: kernels may be chosen otherwise, and bfloat16 rounds to 1 in 256

PATIENCE = 3  # times that numbers which are none let nothing be told


class Slower(RuntimeWarning):
    """Something fast does not work here, and the plain way is taken instead."""


class Gradient(Protocol):
    """Logits [B, C] of `images` and the gradient of a loss with respect to them, like images."""

    def __call__(self, images: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """`target` [B, C] are the logits that KL climbs away from."""


Record = Callable[[Callable[[], tuple[Tensor, Tensor]]], tuple[Callable[[], object], tuple[Tensor, Tensor]]]
"""work -> (replay, outputs): each replay() does the work again and leaves what it gives in the same `outputs`."""


def possible(network: nn.Module, x: Tensor) -> bool:
    """Whether a graph can stand for `network` on images like x: on a GPU, and nobody listens to its modules."""
    return x.is_cuda and not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def record(work: Callable[[], tuple[Tensor, Tensor]]) -> tuple[Callable[[], object], tuple[Tensor, Tensor]]:
    """`work` as a CUDA graph. The rounds before let libraries choose kernels and take their memory."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # All graphs share their memory: none runs while another does, and what they leave is copied at once. The stream is
    # put back here, for a capture that fails leaves its own behind.
    capture = torch.cuda.graph(graph, pool=_pool(), capture_error_mode="thread_local")
    with torch.cuda.stream(torch.cuda.current_stream()), capture:
        outputs = work()
    return graph.replay, outputs


@cache
def _pool() -> Any:
    return torch.cuda.graph_pool_handle()


class Recorded:
    """A gradient with a graph for the largest batch that it has met; all others are computed as ever."""

    def __init__(self) -> None:
        self._inputs: list[Tensor] = []  # where the graph reads
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._replay: Callable[[], object] | None = None
        self._refused = False
        self._in_vain = 0

    def __call__(self, gradient: Gradient, images: Tensor, y: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """What `gradient` gives, which must be the same function at each call."""
        given = [images, y] if target is None else [images, y, target]
        if self._refused:
            return gradient(images, y, target)
        if _forms(given) == _forms(self._inputs) and self._replay is not None and self._outputs is not None:
            for static, one in zip(self._inputs, given, strict=True):
                static.copy_(one)
            self._replay()
            logits, found = self._outputs
            return logits.clone(), found.clone()  # the next replay writes there, and iterates are made of gradients
        expected = gradient(images, y, target)
        if not self._inputs or len(y) > len(self._inputs[1]):
            self._try(gradient, given, expected)
        return expected

    def _try(self, gradient: Gradient, given: list[Tensor], expected: tuple[Tensor, Tensor]) -> None:
        """Record the gradient for batches like `given`, for which it is `expected`."""
        # Of another order, so that a graph that does nothing is not taken for one that works.
        static = [one.detach().flip(0) for one in given]
        try:
            replay, outputs = record(lambda: gradient(static[0], static[1], static[2] if len(static) > 2 else None))
            for there, one in zip(static, given, strict=True):
                there.copy_(one)
            replay()
            trouble = _difference(outputs, expected)
        except (RuntimeError, ValueError) as error:  # what a network does that cannot be recorded, or no memory
            trouble = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
        if trouble is None:
            self._inputs, self._outputs, self._replay = static, outputs, replay
            return
        self._in_vain += 1
        self._refused = bool(trouble) or self._in_vain == PATIENCE
        self._inputs, self._outputs, self._replay = [], None, None
        if trouble:
            warnings.warn(f"attacks run without a CUDA graph: {trouble}", Slower, stacklevel=2)


def recorded(network: nn.Module, loss: str) -> Recorded:
    """What was recorded of the gradient of `loss` on the twin `network`, with which it ends."""
    form = (loss, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)  # evaluation is without
    return _recorded.setdefault(network, {}).setdefault(form, Recorded())


_recorded: WeakKeyDictionary[nn.Module, dict[tuple[str, bool, bool], Recorded]] = WeakKeyDictionary()


def _forms(tensors: list[Tensor]) -> list[object]:
    return [(one.shape, one.dtype, one.device) for one in tensors]


def _difference(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> str | None:
    """None if both agree, else how they differ; "" if nothing can be told, since numbers are none."""
    exactly = torch.are_deterministic_algorithms_enabled()
    for name, one, other in zip(("logits", "the gradient"), found, expected, strict=True):
        norm, difference = float(other.double().norm()), float((one - other).double().norm())
        if norm != norm or norm == float("inf"):
            return ""
        if not difference <= (0.0 if exactly else TOLERANCE * norm):
            return f"{name} came out {difference:.3g} away, at a norm of {norm:.3g}"
    return None
