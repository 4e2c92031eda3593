"""AutoAttack (Croce and Hein 2020) through the package pyautoattack, which carries the authors' own attacks.

The standard ensemble for the l-infinity norm is APGD-CE, targeted APGD-DLR, targeted FAB and Square, each on the
points that survived those before it. This adapter adds what the package leaves to its caller: it checks its inputs,
keeps the package's side effects inside, and can go on after an interruption. To that end it calls the package for
one attack and one batch at a time. The package reseeds itself for every attack and batch, so the same points fall as
in its standard version in one call with the same seed and batch size. No gradient of a parameter is computed, and
sparing.py leaves out what decides nothing. The class that a fallen point is taken for is that of the first image that
fooled, where the package goes on and reports the last.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from engine.attacks.sparing import sure
from engine.attacks.square import Square
from engine.attacks.standing import climb, targets_together
from engine.rundir import replace

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
STANDARD_TARGETS = 9
UNEXPECTED_SQUARE = 0.002
"""Share of all points that the black-box Square may break after the gradient attacks without raising doubt."""


@dataclass(frozen=True)
class Form:
    """Which attacks run, in order, with how many target classes; `version` says whether that is the standard."""

    attacks: tuple[str, ...]
    targets: int
    version: str

    @property
    def standard(self) -> bool:
        """True for the ensemble whose numbers are comparable with published ones."""
        return self.version == "standard"


@dataclass(frozen=True)
class StateFile:
    """Where progress is kept. `identity` names weights, examples and settings; a file of another one is not used."""

    path: Path
    identity: str


@dataclass(frozen=True)
class Result:
    """correct [n] bool: survived everything; predictions [n] int64: on what broke the point, or on the clean image.

    survivors: points standing before ("clean") and after each attack; warnings: what the package or this adapter
    found doubtful, each kind once; seconds: summed over interruptions.
    """

    correct: Tensor
    predictions: Tensor
    survivors: dict[str, int]
    warnings: list[str]
    seconds: float
    form: Form
    implementation: str
    seed: int
    batch_size: int


@dataclass
class _Progress:
    """The next thing to do is batch `batch` of the points `targeted` by attack number `attack`."""

    standing: Tensor
    targeted: Tensor
    predictions: Tensor
    attack: int = 0
    batch: int = 0
    survivors: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0


def implementation() -> str:
    """Name and version of the package."""
    return f"pyautoattack {metadata.version('pyautoattack')}"


def form(classes: int) -> Form:
    """The form that works with this many classes: the standard from 10 on, since it targets 9 other classes.

    With fewer, all other classes are targeted; the targeted DLR loss needs 4 classes and DLR 3. Raises ValueError
    for fewer than 2.
    """
    if classes < 2:
        raise ValueError(f"AutoAttack needs 2 classes or more, not {classes}")
    if classes > STANDARD_TARGETS:
        return Form(STANDARD, STANDARD_TARGETS, "standard")
    attacks: tuple[str, ...] = STANDARD
    if classes < 4:
        attacks = ("apgd-ce", "apgd-dlr", "fab", "square") if classes == 3 else ("apgd-ce", "fab", "square")
    return Form(attacks, classes - 1, f"not standard: {', '.join(attacks)} with {classes} classes")


def autoattack(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    seed: int,
    batch_size: int,
    device: torch.device,
    state: StateFile | None = None,
    poll: Callable[[], None] = lambda: None,
) -> Result:
    """Attack `network` (in eval mode, returning Output with logits) in the l-infinity ball of radius `eps`.

    images [n, C, H, W] float32 in [0, 1], labels [n] int64. `poll` is called before each batch of each attack; if
    it raises, a later call with the same `state` goes on from that batch. Raises ValueError for inputs with which
    the package would fail, or silently give a wrong number.
    """
    _check(network, images, labels)
    progress = _load(state, len(labels))
    if progress is None:
        progress = _clean(network, images, labels, batch_size, device, poll)
        _save(state, progress)
    plan = form(_classes(network, images[:1], device))
    for attack in plan.attacks[progress.attack :]:
        points = progress.targeted.nonzero().flatten()
        for part in torch.split(points, batch_size)[progress.batch :] if len(points) else ():
            poll()
            begun = time.perf_counter()
            x, y = images[part].to(device), labels[part].to(device)
            predictions = _run(network, x, y, attack, plan, eps, seed, batch_size, progress.warnings).cpu()
            progress.predictions[part] = predictions
            progress.standing[part] = predictions == labels[part].cpu()
            progress.batch += 1
            progress.seconds += time.perf_counter() - begun
            _save(state, progress)
        _finish(progress, attack)
        _save(state, progress)
    return Result(
        progress.standing, progress.predictions, progress.survivors, progress.warnings, progress.seconds,
        plan, implementation(), seed, batch_size,
    )  # fmt: skip


def _check(network: nn.Module, images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.float32 or images.dim() != 4:
        raise ValueError(f"AutoAttack takes images [n, C, H, W] in float32, not {list(images.shape)} in {images.dtype}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(f"AutoAttack takes one int64 label an image, not {list(labels.shape)} in {labels.dtype}")
    if len(labels) == 0:
        raise ValueError("AutoAttack takes at least one image")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(
            f"AutoAttack takes images in [0, 1], these are in [{low:g}, {high:g}]; normalise them inside the network"
        )
    if any(module.training for module in network.modules()):
        raise ValueError("AutoAttack takes a network in eval mode; this one is in train mode")


def _classes(network: nn.Module, image: Tensor, device: torch.device) -> int:
    with torch.no_grad():
        return int(network(image.to(device)).logits.shape[1])


def _clean(
    network: nn.Module, images: Tensor, labels: Tensor, batch_size: int, device: torch.device, poll: Callable[[], None]
) -> _Progress:
    """Predictions on the clean images: points that are misclassified already are not attacked."""
    begun = time.perf_counter()
    parts = []
    for batch in torch.split(images, batch_size):
        poll()
        with torch.no_grad():
            logits = network(batch.to(device)).logits
        _check_logits(logits)
        parts.append(logits.argmax(1).cpu())
    predictions = torch.cat(parts)
    standing = predictions == labels.cpu()
    survivors = {"clean": int(standing.sum())}
    return _Progress(standing, standing.clone(), predictions, survivors=survivors, seconds=time.perf_counter() - begun)


def _check_logits(logits: Tensor) -> None:
    if logits.dtype != torch.float32:
        raise ValueError(f"AutoAttack takes logits in float32, not {logits.dtype}")
    is_simplex = bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-5).all())
    if is_simplex:
        raise ValueError("AutoAttack takes logits; this network returns probabilities (take its softmax away)")


def _run(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    attack: str,
    plan: Form,
    eps: float,
    seed: int,
    batch_size: int,
    warnings: list[str],
) -> Tensor:
    """Predictions [b] after one attack of the package on one batch."""
    from pyautoattack import AutoAttack

    logits = _Logits(network)
    with _contained(network, warnings):
        package = AutoAttack(logits, attacks=[attack], device=x.device, eps=eps, seed=seed, version="custom")
        # What the standard version sets and a custom one does not.
        package.apgd.n_restarts = package.fab.n_restarts = 1
        package.apgd_targeted.n_target_classes = package.fab.n_target_classes = plan.targets
        for apgd in (package.apgd, package.apgd_targeted):
            apgd.perturb = partial(climb, apgd, logits, batch_size=batch_size)
        if attack in ("fab-t", "square"):
            answers = sure(network, logits, x)
            package.square.attack_single_run = Square(package.square, answers, batch_size)
            package.fab.perturb = lambda x, y: targets_together(package.fab, answers, x, y, eps, batch_size)
        perturbed, predictions = package.run_standard_evaluation(x, y, batch_size=len(x))
    excess = float((perturbed - x).abs().max()) - eps
    if excess > 1e-6:
        _note(warnings, f"{attack}: a perturbation leaves the ball of radius {eps:g} by {excess:.2g}")
    result: Tensor = predictions
    return result


class _Logits(nn.Module):
    """The package wants a module that returns logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = False

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(x).logits
        return logits


@contextmanager
def _contained(network: nn.Module, warnings: list[str]) -> Iterator[None]:
    """Undo what the package does to the process: it seeds torch's generators, takes the trace function away (and
    with it debuggers and coverage), logs, and, in FAB, adds to the parameters' gradients.
    """
    trace = sys.gettrace()
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    logger = logging.getLogger("auto-attack")
    level, propagate, handler = logger.level, logger.propagate, _Collector(warnings)
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), torch.autocast(device.type, enabled=False):
            for parameter in learning:
                parameter.requires_grad_(False)
            yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
        sys.settrace(trace)


class _Collector(logging.Handler):
    """Turns the package's warnings into entries of the result."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.warnings = warnings

    def emit(self, record: logging.LogRecord) -> None:
        _note(self.warnings, re.sub(r"\s*See flags_doc\.md for details\.", "", record.getMessage()))


def _note(warnings: list[str], message: str) -> None:
    """Add a warning unless one that differs only in its numbers is there already."""

    def kind(text: str) -> str:
        return re.sub(r"\d+", "#", text)

    if kind(message) not in map(kind, warnings):
        warnings.append(message)


def _finish(progress: _Progress, attack: str) -> None:
    """Count the survivors of an attack, and aim the next one at them."""
    progress.survivors[attack] = int(progress.standing.sum())
    lost = int(progress.targeted.sum()) - progress.survivors[attack]
    if attack == "square" and lost > UNEXPECTED_SQUARE * len(progress.standing):
        # The package compares within one call, and so never sees this.
        _note(
            progress.warnings,
            f"Square broke {100 * lost / len(progress.standing):.2f} % of the points after the gradient attacks had "
            "failed on them: their gradients may be masked, and the robust accuracy overstated",
        )
    progress.attack += 1
    progress.batch = 0
    progress.targeted = progress.standing.clone()


def _save(state: StateFile | None, progress: _Progress) -> None:
    if state is None:
        return
    fields = asdict(progress)
    tensors = {name: fields.pop(name) for name in ("standing", "targeted", "predictions")}
    replace(state.path, save(tensors, {"identity": state.identity, "progress": json.dumps(fields)}))


def _load(state: StateFile | None, n: int) -> _Progress | None:
    """Progress stored for the same identity; None if there is none, or if the file is damaged."""
    if state is None or not state.path.exists():
        return None
    try:
        with safe_open(state.path, framework="pt") as file:
            stored = file.metadata() or {}
            # Cloned, for they are views of the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (it is no dict)
        if stored.get("identity") != state.identity:
            return None
        progress = _Progress(**tensors, **json.loads(stored["progress"]))
    except (SafetensorError, KeyError, TypeError, ValueError):
        return None
    return progress if len(progress.standing) == n else None
