"""What a run takes of the machine: a share of its cores, or one GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import tomli

from engine.rundir import RunDir

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned


@dataclass(frozen=True)
class Need:
    """`share` of the cores in [0, 1], and `gpu`: "" none, "any", or the number of one."""

    share: float
    gpu: str
    threads: int = 0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gpus() -> list[str]:
    """Numbers of the GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES allows; [] where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = [line.split(":")[0].removeprefix("GPU ").strip() for line in listed.splitlines() if line.startswith("GPU ")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else [number for number in found if number in visible.replace(" ", "").split(",")]


def need(run: RunDir, available: list[str]) -> Need:
    """What `run` takes on a machine with the GPUs `available`, by its recipe's [run] and run.json's share."""
    try:
        wanted = tomli.loads(run.recipe.read_text(encoding="utf-8")).get("run", {})
    except (OSError, ValueError, RecursionError):
        wanted = {}  # the engine will say what is wrong with the recipe
    threads = _number(wanted.get("threads"))
    given = run.json("run.json").get("share")
    gpu = gpu_of(str(wanted.get("device", "auto")), available)
    if isinstance(given, (int, float)) and 0 < given <= 1:
        share = float(given)
    else:
        share = 0.0 if gpu else min(1.0, (threads or cores()) / cores())
    return Need(share, gpu, threads)


def gpu_of(device: str, available: list[str]) -> str:
    """The GPU that a recipe's run.device asks for: "" none, "any", or the number of one."""
    if device.startswith("cuda:"):
        return device.removeprefix("cuda:")
    return "any" if device == "cuda" or (device == "auto" and available) else ""


def share_out(plans: Sequence[Planned], jobs: int | None) -> tuple[list[Planned], float | None]:
    """`plans` with their CPU threads settled, and the share of the machine that each takes (None: by its threads).

    Of the plans, `jobs` work at a time; None: as many as there are cores or, for those that want a GPU, GPUs. Threads
    that a recipe names itself stay. They are settled before a run is made because sums depend on their number.
    """
    available = gpus()
    count, settled = cores(), []
    for plan in plans:
        places = len(available) if gpu_of(plan.recipe.run.device, available) and available else count
        threads = plan.recipe.run.threads or max(1, count // (jobs or min(len(plans), places)))
        run = plan.recipe.run.model_copy(update={"threads": threads})
        settled.append(replace(plan, recipe=plan.recipe.model_copy(update={"run": run})))
    return settled, 1 / jobs if jobs else None


def _number(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
