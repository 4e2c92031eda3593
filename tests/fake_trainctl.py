"""The real command line, whose engine is tests/fake_engine.py; and what the tests of processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from engine.rundir import FINAL, RunDir  # noqa: E402
from trainctl.home import Home  # noqa: E402
from trainctl.launch import folders, processes, scheduler, slots  # noqa: E402

# Hundreds of them are started, and coverage would take twice what they take themselves.
UNMEASURED = ("/usr/bin/env", "COVERAGE_PROCESS_START=", "COVERAGE_PROCESS_CONFIG=")
ENGINE = (*UNMEASURED, sys.executable, str(Path(__file__).with_name("fake_engine.py")))
COMMAND = [sys.executable, str(Path(__file__))]


def queue(home: Home, *names: str, share: float | None = None, **settings: object) -> list[RunDir]:
    """Queue a run for each name, with recipe keys such as run__threads=1."""
    from trainctl.recipes.plan import plan

    given = [
        f"{key.replace('__', '.')}={value}"
        for key, value in {"run__device": "cpu", "run__threads": 1, **settings}.items()
    ]
    plans = [plan(["digits-trades"], overrides=given, name=name)[0] for name in names]
    return folders.create(home, plans, share=share)


def serve(home: Home, *, engine: Sequence[str] = ENGINE, **env: str) -> subprocess.Popen[bytes]:
    """A scheduler of this home as a child of the test."""
    command = [sys.executable, "-m", "trainctl.launch.scheduler", str(home.path), *engine]
    with open(home.path / "scheduler.log", "ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**environment(home), **env}, start_new_session=True
        )  # fmt: skip


def until(condition: Callable[[], object], seconds: float = 90.0) -> None:
    """Wait until `condition` holds; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.03)


def ended(runs: list[RunDir]) -> Callable[[], bool]:
    """A condition: all of them have an exit.json."""
    return lambda: all(run.json("exit.json").get("status") in FINAL for run in runs)


def starts(run: RunDir) -> list[str]:
    """One line for each time that an engine was started on the run."""
    file = run.path / "starts"
    return file.read_text().splitlines() if file.exists() else []


@contextmanager
def tidy(home: Home) -> Iterator[Home]:
    """Whatever the test leaves at work in the home is stopped."""
    try:
        yield home
    finally:
        for run in home.run_dirs():
            if run.status() == "queued":
                processes.request_stop(run)
        for run in home.run_dirs():
            if run.status() not in FINAL:
                processes.stop([run], grace=0.0)
        until(lambda: not scheduler.alive(home))


def cli(home: Home, *arguments: str, timeout: float = 300, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(home), capture_output=True, text=True, timeout=timeout, **more
    )  # fmt: skip


def humble() -> None:
    """What a child does to have no right that the modes of files do not give, also if it is root (`preexec_fn`)."""
    import ctypes

    for capability in (1, 2) if os.getuid() == 0 else ():  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


def environment(home: Home) -> dict[str, str]:
    """The environment of a command on `home`."""
    return {**os.environ, "TRAINCTL_HOME": str(home.path), "NO_COLOR": "1", "COLUMNS": "100"}


if __name__ == "__main__":
    from trainctl.cli.app import run

    processes.ENGINE = ENGINE
    slots.gpus = list  # tests must not depend on the machine's
    run()
