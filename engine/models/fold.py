"""A network as an attack sees it: its weights stay as they are for many steps, and BatchNorm is in eval mode.

BatchNorm is then an affine map that the convolution before it can do by itself: w x -> s w x + (b - s mean), with
s = gamma / sqrt(variance + eps). That is exact but for rounding, and halves the passes over the activations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def folded(network: nn.Module) -> Iterator[None]:
    """Within it `network` computes with BatchNorm folded, and no gradient reaches its convolutions.

    Under autocast the folded weights are rounded once, here, and not in each forward. Folded is what follows a
    convolution in an nn.Sequential or by the attribute `folds` of a module ({convolution: BatchNorm}); where
    BatchNorm is in train mode, and in a compiled network, everything stays as it is. No weight, buffer, mode or
    gradient is touched, so the weights must not change meanwhile.
    """
    changed: list[nn.Module] = []
    if network._compiled_call_impl is None:
        partners = dict(_pairs(network))
        for module in network.modules():
            if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
                norm = partners.get(module)
                changed.append(module)
                module.forward = _convolution(module, norm)  # type: ignore[assignment]
                if norm is not None:
                    changed.append(norm)
                    norm.forward = _unchanged  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # of the instance; that of its class shows again


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, _BatchNorm]]:
    """Each convolution whose output goes into one BatchNorm in eval mode and nowhere else."""
    for module in network.modules():
        children = dict(module.named_children())
        if isinstance(module, nn.Sequential):
            found = list(pairwise(children.values()))
        else:
            found = [(children[first], children[second]) for first, second in getattr(module, "folds", {}).items()]
        for convolution, norm in found:
            if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, _BatchNorm)):
                continue
            if not norm.training and norm.running_mean is not None:
                yield convolution, norm


@torch.no_grad()
def _convolution(module: nn.Conv2d, norm: _BatchNorm | None) -> Callable[[Tensor], Tensor]:
    """`module`, and `norm` after it, as one convolution with constant weights."""
    weight, bias = module.weight.detach(), module.bias
    if norm is not None:
        assert norm.running_mean is not None  # see `_pairs`
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            scale = scale * norm.weight
        shift = -norm.running_mean if bias is None else bias - norm.running_mean
        weight = weight * scale.view(-1, 1, 1, 1)
        bias = shift * scale + norm.bias if norm.affine else shift * scale
    device = weight.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
    weight = weight.to(precision, memory_format=torch.channels_last)
    bias = None if bias is None else bias.detach().to(precision)

    def forward(x: Tensor) -> Tensor:
        x = x.to(precision, memory_format=torch.channels_last)
        return F.conv2d(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)

    return forward


def _unchanged(x: Tensor) -> Tensor:
    return x
