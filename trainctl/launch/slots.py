"""What a run takes of the machine: a share of its cores, a part of a GPU, or several GPUs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.rundir import RunDir

if TYPE_CHECKING:
    from trainctl.recipes.plan import Planned


@dataclass(frozen=True)
class Need:
    """`share` of the cores in [0, 1], and `gpu`: "" none, "any", or the number of one.

    `gpus` is how much of the GPUs: a part of one in (0, 1], or so many whole ones.
    """

    share: float
    gpu: str
    threads: int = 0
    gpus: float = 1.0


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gpus() -> list[str]:
    """Numbers of the GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES shows; [] where there is none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = re.findall(r"^GPU (\d+): .*?(GPU-[\w-]+|$)", listed, re.MULTILINE)
    return shown(found, os.environ.get("CUDA_VISIBLE_DEVICES"))


def shown(found: Sequence[tuple[str, str]], visible: str | None) -> list[str]:
    """Numbers of those of the GPUs `found` (number and UUID) that CUDA_VISIBLE_DEVICES = `visible` shows; None: all.

    It names them by their numbers or, as batch systems have it, by the beginnings of their UUIDs.
    """
    if visible is None:
        return [number for number, _ in found]
    names = visible.replace(" ", "").split(",")
    uuids = tuple(name for name in names if name.startswith("GPU-"))
    return [number for number, uuid in found if number in names or uuid.startswith(uuids)]


def need(run: RunDir, available: list[str]) -> Need:
    """What `run` takes on a machine with the GPUs `available`, by its recipe's [run] and run.json's share."""
    try:
        wanted = run.table().get("run")
    except (OSError, ValueError):
        wanted = None
    if not isinstance(wanted, dict):
        wanted = {}  # the engine will say what is wrong with the recipe
    given = run.json("run.json").get("share")
    return asked(
        str(wanted.get("device", "auto")), _count(wanted.get("threads")), _gpus(wanted.get("gpus")),
        float(given) if isinstance(given, (int, float)) and 0 < given <= 1 else None, available,
    )  # fmt: skip


def asked(device: str, threads: int, gpus: float, share: float | None, available: Sequence[str]) -> Need:
    """What a recipe's run.device, run.threads and run.gpus take on a machine with the GPUs `available`.

    `share` None: of the cores what `threads` are, or nothing beside a GPU. Without a GPU, `gpus` says nothing; a
    pinned GPU (cuda:1) is one at most; more than there are means all.
    """
    gpu = gpu_of(device, available)
    if share is None:
        share = 0.0 if gpu else min(1.0, (threads or cores()) / cores())
    most = 1.0 if gpu != "any" else max(1.0, float(len(available)))
    return Need(share, gpu, threads, min(gpus, most) if gpu else 1.0)


def gpu_of(device: str, available: Sequence[str]) -> str:
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
        run = plan.recipe.run
        many = places(asked(run.device, run.threads, run.gpus, None, available), available)
        threads = run.threads or max(1, count // (jobs or min(len(plans), many)))
        run = run.model_copy(update={"threads": threads})
        settled.append(replace(plan, recipe=plan.recipe.model_copy(update={"run": run})))
    return settled, 1 / jobs if jobs else None


def places(wanted: Need, available: Sequence[str]) -> int:
    """How many runs that want the same GPUs have room on them at a time; how many cores there are, for one without."""
    if not wanted.gpu:
        return cores()
    if wanted.gpus > 1:
        return len(available) // int(wanted.gpus)
    return int(1 / wanted.gpus + 1e-9) * (len(available) or 1 if wanted.gpu == "any" else 1)


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 20 else 0


def _gpus(value: Any) -> float:
    """As engine.sections.Run checks it; 1.0 for what it would refuse."""
    sound = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 64
    return float(value) if sound and (value <= 1 or value % 1 == 0) else 1.0
