"""The networks of one run: M' (adversarial) and, where the method or TRAIN needs it, M (standard); their optimizer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

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

    def eager(self) -> None:
        """Undo `compile_networks`: evaluation computes as it would without."""
        for network in self.present():
            network._compiled_call_impl = None

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


def compile_networks(networks: Networks, image_size: tuple[int, ...], device: torch.device) -> str:
    """Compile every network in place. Returns "" or, where this machine cannot, why; the run then goes on without.

    `image_size` is (C, H, W). The first forward tells whether there is a working compiler at all; a later graph that
    cannot be compiled falls back to eager by itself.
    """
    try:
        for network in networks.present():
            network.compile()
            network.eval()
            with torch.no_grad():
                network(torch.zeros(2, *image_size, device=device))
    except Exception as error:  # compilers fail in many ways, and none of them is worth a run
        networks.eager()
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    torch._dynamo.config.suppress_errors = True
    return ""


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
