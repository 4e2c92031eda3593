"""A network as an attack sees it: its weights stay as they are for many steps, and BatchNorm is in eval mode.

BatchNorm is then an affine map that the convolution before it can do by itself: w x -> s w x + (b - s mean), with
s = gamma / sqrt(variance + eps). That is exact but for rounding, and halves the passes over the activations. What
follows no convolution is one multiplication and addition, whose backward needs nothing that was computed forward.

The network that computes so is a *twin*: the same modules with weights of their own, whose storage stays where it is
while they are written anew for each attack; so a compiler and a CUDA graph may rely on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from itertools import chain, pairwise
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_REGISTERED = ("_parameters", "_buffers", "_modules", "_compiled_call_impl")


def folded(network: nn.Module) -> nn.Module:
    """The twin of `network` (in eval mode): equal but for rounding, and no gradient reaches its weights.

    It has the weights that the network has at this moment, and is the same object again at the next call, brought up
    to date, unless the network was changed in more than its numbers. Under autocast its convolutions are rounded
    once, here, and not in each forward. Folded is what follows a convolution in an nn.Sequential or by the attribute
    `folds` of a module ({convolution: BatchNorm}); so nobody may take the convolution's output out of a Sequential.
    What else the modules hold (settings, hooks) they share; a module whose settings change with each forward gets a new
    twin each time. The network itself does not know of its twin, which ends with it, unless one of its modules
    refers back to it.
    """
    device = next((tensor.device.type for tensor in chain(network.parameters(), network.buffers())), "cpu")
    rounded = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    form = rounded, network._compiled_call_impl is not None
    twins = _twins.setdefault(network, {})
    twin, structure = twins.get(form), _structure(network)
    if twin is None or twin.structure != structure:
        twin = twins[form] = Twin(network, rounded, structure)
    twin.refill(network)
    return twin.network


class Twin:
    """`network` is the twin. It never refers to the network that it is made from, which would not end otherwise."""

    def __init__(self, network: nn.Module, rounded: torch.dtype | None, structure: Hashable) -> None:
        self.structure = structure
        norms = dict(_pairs(network))
        absorbed = set(norms.values())
        self._modules: list[nn.Module] = []
        made: dict[nn.Module, nn.Module] = {}
        for module in network.modules():
            if module in absorbed:
                made[module] = nn.Identity()
            elif _is_affine(module):
                made[module] = _Affine(module, rounded)  # type: ignore[arg-type]
            else:
                made[module] = _like(module, rounded, module in norms)
            self._modules.append(made[module])
        for module, own in made.items():
            for name, child in module._modules.items():
                own._modules[name] = None if child is None else made[child]
        self.network = made[network].requires_grad_(False)
        if network._compiled_call_impl is not None:
            self.network.compile(dynamic=False)

    @torch.no_grad()
    def refill(self, network: nn.Module) -> None:
        """Take over the numbers of `network` as they are now, in place, and all that its modules hold otherwise."""
        norms = dict(_pairs(network))
        for module, own in zip(network.modules(), self._modules, strict=True):
            if isinstance(own, _Affine):
                scale, shift = _affine(module)  # type: ignore[arg-type]
                own.scale.copy_(scale.view(-1, 1, 1))
                own.shift.copy_(shift.view(-1, 1, 1))
            elif type(own) is type(module):
                vars(own).update((name, value) for name, value in vars(module).items() if name not in _REGISTERED)
                for name, tensor in _tensors(module, norms.get(module)):
                    getattr(own, name).copy_(tensor)


_twins: WeakKeyDictionary[nn.Module, dict[tuple[torch.dtype | None, bool], Twin]] = WeakKeyDictionary()


class _Affine(nn.Module):
    """BatchNorm in eval mode with nothing to fold it into."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d, rounded: torch.dtype | None) -> None:
        super().__init__()
        blank = torch.empty_like(norm.running_mean, dtype=rounded).view(-1, 1, 1)  # type: ignore[arg-type]
        self.register_buffer("scale", blank)
        self.register_buffer("shift", blank.clone())

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def _like(module: nn.Module, rounded: torch.dtype | None, absorbs: bool) -> nn.Module:
    """Shares all with `module` but its tensors, which are yet to be filled; as DataParallel's replicas do."""
    own: nn.Module = object.__new__(type(module))
    vars(own).update(vars(module), _parameters={}, _buffers={}, _modules={}, _compiled_call_impl=None)
    convolution, weight = _is_plain(module, nn.Conv2d), module._parameters.get("weight")
    for name, tensor in module._parameters.items():
        blank = None if tensor is None else torch.empty_like(tensor.detach())
        if absorbs and name == "bias" and weight is not None:
            blank = torch.empty_like(weight[:, 0, 0, 0].detach())
        if convolution and blank is not None:
            layout = torch.channels_last if name == "weight" else torch.contiguous_format
            blank = blank.to(blank.dtype if rounded is None else rounded, memory_format=layout)
        own._parameters[name] = None if blank is None else nn.Parameter(blank, requires_grad=False)
    for name, buffer in module._buffers.items():
        own._buffers[name] = None if buffer is None else torch.empty_like(buffer)
    return own


def _tensors(module: nn.Module, norm: _BatchNorm | None) -> Iterator[tuple[str, Tensor]]:
    """What the twin of `module` holds, by name, with `norm` folded into it."""
    if norm is not None:
        (scale, shift), weight, bias = _affine(norm), module._parameters["weight"], module._parameters["bias"]
        assert weight is not None  # the norm's partner is a convolution
        yield "weight", weight * scale.view(-1, 1, 1, 1)
        yield "bias", shift if bias is None else bias * scale + shift
        return
    for name, tensor in chain(module._parameters.items(), module._buffers.items()):
        if tensor is not None:
            yield name, tensor


def _affine(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """(scale [C], shift [C]) of `norm` in eval mode."""
    assert norm.running_mean is not None  # see `_is_affine`
    assert norm.running_var is not None
    scale = torch.rsqrt(norm.running_var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight
    return scale, -norm.running_mean * scale + (norm.bias if norm.affine else 0.0)


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, _BatchNorm]]:
    """Each convolution whose output goes into one BatchNorm in eval mode and nowhere else."""
    places = Counter(child for module in network.modules() for child in module._modules.values())
    for module in network.modules():
        children = module._modules
        if type(module).forward is nn.Sequential.forward:
            found = list(pairwise(children.values()))
        else:
            found = [(children.get(one), children.get(other)) for one, other in getattr(module, "folds", {}).items()]
        for convolution, norm in found:
            if _is_plain(convolution, nn.Conv2d) and _is_affine(norm) and places[convolution] == places[norm] == 1:
                yield convolution, norm  # type: ignore[misc]


def _is_affine(module: nn.Module | None) -> bool:
    return _is_plain(module, nn.BatchNorm2d) and not module.training and module.running_mean is not None  # type: ignore


def _is_plain(module: nn.Module | None, kind: type[nn.Module]) -> bool:
    """Whether `module` computes what its type says: no subclass, no forward of its own, nobody who listens."""
    if type(module) is not kind or module is None:
        return False
    return "forward" not in vars(module) and not (module._forward_hooks or module._forward_pre_hooks)


def _structure(network: nn.Module) -> Hashable:
    """All of a network but its numbers: what a twin is made for."""
    modules: list[Any] = [(name, type(module), *_settings(module)) for name, module in network.named_modules()]
    tensors = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    shapes = [(name, tensor.shape, tensor.dtype, tensor.device) for name, tensor in tensors]
    return (*modules, *shapes)


def _settings(module: nn.Module) -> Iterator[Hashable]:
    """Simple attributes, training among them; and whether someone listens."""
    yield from ((name, value) for name, value in vars(module).items() if isinstance(value, bool | int | float | str))
    yield _is_plain(module, type(module))
