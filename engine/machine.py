"""What the run computes on: device, precision, threads, determinism; and env.json, which records all of it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine import options, source
from engine.recipe import Model, Recipe
from engine.recipe import Run as RunSection

PACKAGES = ("torch", "torchvision", "triton", "numpy", "pyautoattack", "safetensors", "scikit-learn", "pydantic")

COMPILATION_PAYS = 10_000  # steps: minutes once, some milliseconds a step


class MachineLacks(Exception):
    """The machine cannot do what the recipe asks; `hint` says what to change."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Machine:
    """Where and how the numbers are computed."""

    device: torch.device
    bfloat16: bool
    threads: int

    @property
    def reproducible(self) -> bool:
        """True if the same recipe gives the same bits again here."""
        return self.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()


def prepare(run: RunSection, model: Model) -> Machine:
    """Set threads and determinism for this process; choose the device and, for M' `model`, the precision.

    Raises MachineLacks.
    """
    if run.threads:
        torch.set_num_threads(run.threads)
    device = _device(run.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # for what is asked of the current one: streams, graphs, memory
    if run.deterministic:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    elif device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    # Of matrix products are the last layer and L_TP; some containers turn TF32 on for them, which PyTorch does not.
    torch.set_float32_matmul_precision("highest")
    bfloat16 = run.precision == "bfloat16" or (run.precision == "auto" and _fast_bfloat16(device, model))
    return Machine(device, bfloat16, torch.get_num_threads())


def _fast_bfloat16(device: torch.device, model: Model) -> bool:
    """Whether `model` is known to train faster in bfloat16 here: a rule, since a measurement could fall out otherwise
    for the next run. A GPU must have the type; a CPU the instructions for it and a network that spends its time in
    wide dense convolutions, which neither small-cnn nor a depthwise one does.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch cannot tell
    dense = model.arch.startswith(("resnet", "wrn"))
    return dense and bool(has.get("avx512_bf16") or has.get("amx_bf16"))


def compiles(run: RunSection, device: torch.device, steps: int) -> bool:
    """Whether a run of `steps` steps compiles its networks: a rule of recipe and machine, so that a resumed run does as
    the one before it did. `auto` compiles where Triton can make kernels for the GPU and there are steps enough to
    pay for it. On a CPU it does not: steps become a tenth faster at best, for minutes at each start
    (docs/speed.md); nor where the kernels must be deterministic.
    """
    if run.compile != "auto":
        return run.compile == "on"
    if device.type != "cuda" or run.deterministic or steps < COMPILATION_PAYS:
        return False
    return importlib.util.find_spec("triton") is not None and torch.cuda.get_device_capability(device) >= (7, 0)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise MachineLacks(f"run.device = {name!r} is no device", "use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise MachineLacks(
            f"run.device = {name!r}, but this machine has {torch.cuda.device_count()} usable GPU(s)",
            'set run.device = "auto", or look at `trainctl doctor`',
        )
    if device.type not in ("cpu", "cuda"):
        raise MachineLacks(f"run.device = {name!r} is not supported", "use auto, cpu, cuda or cuda:N")
    return device


def environment(recipe: Recipe, machine: Machine) -> dict[str, Any]:
    """Content of env.json, as long as nothing is compiled."""
    came = source.origin(options.PACKAGE.parent)
    cuda = machine.device.type == "cuda"
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": came["git"],
        "code": came["code"],
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(machine.device) if cuda else _cpu_name(),
        "device_type": machine.device.type,
        "cuda": torch.version.cuda if cuda else None,
        "threads": machine.threads,
        "precision": "bfloat16" if machine.bfloat16 else "float32",
        "compiled": False,
        "reproducible": machine.reproducible,
        "argv": sys.argv,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "plugins": _plugins(recipe, came["plugins"]),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _plugins(recipe: Recipe, frozen: list[str]) -> list[dict[str, str]]:
    """Files outside the package that this run uses, with their checksums.

    `frozen` are the folders that those of TRAINCTL_PLUGINS are copies of, [] if they are no copies.
    """
    kinds = {"Method": [recipe.method.name], "DataSource": [recipe.data.dataset], "Term": recipe.terms.model_dump()}
    used = [options.catalog(kind)[name] for kind, names in kinds.items() for name in names]
    before = dict(zip(options.plugin_folders(), frozen, strict=False))
    return [
        {
            "path": str(Path(before.get(entry.path.parent, entry.path.parent), entry.path.name)),
            "sha256": hashlib.sha256(entry.path.read_bytes()).hexdigest(),
        }
        for entry in used
        if not entry.path.is_relative_to(options.PACKAGE)
    ]
