"""What all checks look at, read once: the runs with their status, the processes, the GPUs, the machine's boot."""

from __future__ import annotations

import stat
from functools import cached_property
from typing import Any

from engine.rundir import UNFINISHED, RunDir
from trainctl.doctor.integrity import damage
from trainctl.doctor.programs import Answer, ask
from trainctl.doctor.workers import Worker, workers
from trainctl.errors import MachineError
from trainctl.home import Home
from trainctl.launch.gpus import Gpus, Nvml
from trainctl.registry.ingest import status_of
from trainctl.registry.plain import finite, real, text

SMALL = ("run.json", "recipe.toml", "queue.json", "launch.json", "heartbeat.json", "exit.json")
QUERY = "--query-gpu=index,name,driver_version,ecc.errors.uncorrected.volatile.total,uuid"


class View:
    """One look at a home. What was read stays as it was then; `doctor` makes a new one after mending."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.unlisted: MachineError | None = None
        """Why the runs cannot be listed."""

    @cached_property
    def folders(self) -> list[RunDir]:
        """All run folders, also those that cannot be read; none if they cannot be listed, see `unlisted`."""
        try:
            return self.home.run_dirs()
        except MachineError as error:
            self.unlisted = error
            return []

    @cached_property
    def odd(self) -> dict[str, str]:
        """Runs that are not even asked for their status, and why: to open what is no plain file may never end."""
        found = {run.id: _oddity(run) for run in self.folders}
        return {run: why for run, why in found.items() if why}

    @cached_property
    def runs(self) -> dict[RunDir, str]:
        """Every other run with its status."""
        return {run: status_of(run) for run in self.folders if run.id not in self.odd}

    @cached_property
    def unfinished(self) -> dict[RunDir, str]:
        """Those of `runs` that have not ended."""
        return {run: status for run, status in self.runs.items() if status in UNFINISHED}

    @cached_property
    def workers(self) -> list[Worker]:
        """The processes at work for this home."""
        return workers(self.home)

    @cached_property
    def nvidia(self) -> Answer | None:
        """A line a GPU: its number, name, driver and uncorrected memory errors. None without nvidia-smi."""
        return ask("nvidia-smi", QUERY, "--format=csv,noheader,nounits")

    @cached_property
    def gpus(self) -> Gpus:
        """The GPUs as NVML tells of them; not asked if nvidia-smi fails, for then this process might hang."""
        return Nvml().look() if self.nvidia is not None and self.nvidia.good else Gpus()

    @cached_property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """The recipes of unfinished runs by id; {} for one that cannot be read."""
        return {run.id: recipe(run) for run in self.unfinished}

    @cached_property
    def index_damage(self) -> str:
        """What is wrong with the index, "" if nothing."""
        return damage(self.home)

    def name(self, run: RunDir) -> str:
        """`ID name`."""
        name = run.json("run.json").get("name")
        return f"{run.id} {text(name)}".rstrip()


def recipe(run: RunDir) -> dict[str, Any]:
    """recipe.toml as tables; {} if it cannot be read."""
    try:
        return run.table()
    except (OSError, ValueError):
        return {}


def section(recipe: dict[str, Any], name: str) -> dict[str, Any]:
    """One table of a recipe; {} if there is none."""
    found = recipe.get(name)
    return found if isinstance(found, dict) else {}


def moment(record: dict[str, Any]) -> float | None:
    """When a record was written (`t`, unix seconds); None if it does not say so."""
    found = real(record.get("t"))
    return None if found is None else finite(found)


def _oddity(run: RunDir) -> str:
    for name in SMALL:
        try:
            if not stat.S_ISREG((run.path / name).stat().st_mode):
                return f"{name} is no plain file"
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{name}: {error.strerror}"
    return ""
