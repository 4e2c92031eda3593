"""The networks of one run: M' (adversarial) and, where the method or TRAIN needs it, M (standard); their optimizer."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.attacks.graphs import Slower
from engine.checkpoint import pick, put, restore
from engine.data.base import Splits
from engine.machine import Machine
from engine.models.build import build
from engine.models.output import Output
from engine.randomness import derive
from engine.recipe import Model, Optim, Recipe, Schedule, needs_standard


@dataclass
class Networks:
    """`standard` is None where nothing needs M; `frozen` is TRAIN*'s M, which no longer learns."""

    adversarial: nn.Module
    standard: nn.Module | None
    frozen: bool = False

    def tensors(self) -> dict[str, Tensor]:
        """All weights and buffers, for a checkpoint."""
        found = put(self.adversarial.state_dict(), "model.")
        return found if self.standard is None else found | put(self.standard.state_dict(), "standard.")

    def restore(self, tensors: dict[str, Tensor], path: object) -> None:
        """Load what `tensors` gave."""
        restore(self.adversarial, pick(tensors, "model."), path)  # type: ignore[arg-type]
        if self.standard is not None:
            restore(self.standard, pick(tensors, "standard."), path)  # type: ignore[arg-type]

    def trained(self) -> dict[Tensor, str]:
        """Parameters that learn, with their names in a checkpoint."""
        named: dict[Tensor, str] = {p: f"model.{n}" for n, p in self.adversarial.named_parameters()}
        if self.standard is not None and not self.frozen:
            named |= {p: f"standard.{n}" for n, p in self.standard.named_parameters()}
        return named

    def widths(self, image: tuple[int, ...]) -> tuple[int, int]:
        """Number of penultimate features of M' and of M (0 without M), on images of shape `image` (C, H, W)."""
        found = []
        for network in self.present():
            network.eval()
            with torch.no_grad():
                blank = torch.zeros(2, *image, device=next(network.parameters()).device)
                found.append(network(blank).features.shape[1])
        return found[0], (found[1] if self.standard is not None else 0)

    @contextmanager
    def eager(self) -> Iterator[None]:
        """Within it all is computed as without `compile_networks`: evaluation is."""
        compiled = [(network, network._compiled_call_impl) for network in self.present()]
        for network, _ in compiled:
            network._compiled_call_impl = None
        try:
            yield
        finally:
            for network, calls in compiled:
                network._compiled_call_impl = calls

    def present(self) -> list[nn.Module]:
        """M' and, if there is one, M."""
        return [self.adversarial] if self.standard is None else [self.adversarial, self.standard]

    def mode(self, training: bool) -> None:
        """Train or eval mode; a frozen M always stays in eval mode."""
        self.adversarial.train(training)
        if self.standard is not None:
            self.standard.train(training and not self.frozen)


def build_networks(recipe: Recipe, splits: Splits, device: torch.device) -> Networks:
    """M' and, if needed, M, with initial weights that depend on the seed and on nothing else."""
    channels, image_size = splits.train.images.shape[1], splits.train.images.shape[-1]

    def one(section: Model, role: str) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(recipe.run.seed, "init", role))
            network = build(section, channels, image_size, splits.classes)
        # A GPU would lay the weights out anew in each forward; a CPU gains nothing, and digits would move by a bit.
        return network.to(memory_format=torch.channels_last).to(device) if device.type == "cuda" else network

    topology = recipe.topology
    adversarial = one(recipe.model, "adversarial")
    if not needs_standard(recipe):
        return Networks(adversarial, None)
    return Networks(adversarial, one(recipe.standard, "standard"), topology.enabled and topology.variant == "star")


def compile_networks(networks: Networks, device: torch.device) -> str:
    """Compile every network when it is called first. Returns "" or, if no compiler works here, why; then nothing is.

    What cannot be compiled later is run as it is, with a warning. A kernel is made for each shape, and none for all
    shapes after the second: which one a batch meets, and so its last bits, must not depend on what came before.
    """
    try:
        torch.compile(_anything)(torch.ones(64, device=device))
    except Exception as error:  # compilers fail in many ways, and none of them is worth a run
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.recompile_limit = 64  # all networks count as one, in each mode and for each shape
    logger = logging.getLogger("torch._dynamo.convert_frame")
    if not any(isinstance(handler, _Listener) for handler in logger.handlers):
        logger.addHandler(_Listener(logging.WARNING))
    for network in networks.present():
        network.compile(dynamic=False)
    return ""


def _anything(x: Tensor) -> Tensor:
    return (2 * x).relu().sum()


class _Listener(logging.Handler):
    """Turns what the compiler gave up into a warning of ours."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        said = record.getMessage() if error is None else f"{type(error).__name__}: {error}"
        warnings.warn(f"torch.compile gave up a part: {' '.join(said.split())[:300]}", Slower, stacklevel=2)


def build_optimizer(section: Optim, parameters: list[Tensor]) -> torch.optim.SGD:
    """SGD with weight decay on all parameters, as in all of this literature. M and M' share no parameter, so one
    optimizer for both equals one each.
    """
    return torch.optim.SGD(
        parameters,
        lr=section.lr,
        momentum=section.momentum,
        weight_decay=section.weight_decay,
        nesterov=section.nesterov,
        fused=all(parameter.is_cuda for parameter in parameters),  # a CPU gains nothing from it
    )


def learning_rate(optim: Optim, schedule: Schedule, epoch: int) -> float:
    """The rate in `epoch` (from 1): multiplied by gamma, or by its own factor, from each milestone epoch on."""
    if epoch == 1 and schedule.first_epoch_lr > 0:
        return schedule.first_epoch_lr
    factors = schedule.factors or [schedule.gamma] * len(schedule.milestones)
    passed = [factor for milestone, factor in zip(schedule.milestones, factors, strict=True) if epoch >= milestone]
    return optim.lr * math.prod(passed)


class Forward:
    """Runs a network in the run's precision; its features and logits are float32 (or wider) in any case.

    Dropout draws from torch's global generator, so it is seeded per step and purpose: otherwise M's forwards
    would shift M' dropout masks and a pair would differ in more than the regulariser.
    """

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine, self._seed = machine, seed
        self.position: tuple[str | int, ...] = ()

    def __call__(self, network: nn.Module, images: Tensor, purpose: str) -> Output:
        """Output of `network` on images [B, C, H, W]."""
        torch.manual_seed(derive(self._seed, "dropout", purpose, *self.position))
        with self.precision():
            output: Output = network(images)
        return output

    def precision(self) -> torch.autocast:
        """Context in which networks run: bfloat16 where the run uses it, else as the tensors are."""
        return torch.autocast(self._machine.device.type, dtype=torch.bfloat16, enabled=self._machine.bfloat16)
