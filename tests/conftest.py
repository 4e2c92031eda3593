"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from engine.lifecycle import STOP_SIGNALS, Lifecycle
from engine.rundir import RunDir

ROOT = Path(__file__).parent.parent

# Tests share two cores; more threads than cores in many small processes only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whoever works with trainctl has these set, and tests are to find what they would find elsewhere.
for _name in ("TRAINCTL_PLUGINS", "TRAINCTL_HOME", "TRAINCTL_DATA"):
    os.environ.pop(_name, None)

# A suite that a shell began in the background is deaf to these, and so would be all that it starts.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

TINY: dict[str, Any] = {
    "data": {"dataset": "digits", "train_examples": 200},
    "model": {"arch": "small-cnn", "width": 4},
    "standard": {"arch": "small-cnn", "width": 4},
    "method": {"name": "trades"},
    "attack": {"eps": 0.2, "step_size": 0.05, "steps": 2},
    "optim": {"batch_size": 64},
    "schedule": {"epochs": 2, "milestones": []},
    "eval": {
        "attacks": ["pgd20"], "eps": 0.2, "step_size": 0.02, "examples": 60, "topology_k": 5, "topology_support": 50,
    },
    "run": {"threads": 1, "device": "cpu", "log_every": 2},
}  # fmt: skip

USUAL = 0.005
"""Seconds that planning a sound recipe takes where the limits of time in the tests were chosen."""


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with dotted keys of `changes` put in."""
    result = {key: dict(part) if isinstance(part, dict) else part for key, part in base.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        result.setdefault(section, {})[name] = value
    return result


def within(took: float, seconds: float) -> bool:
    """Whether `took` seconds of CPU are less than `seconds`, or than these are where everything takes longer: on a
    slower machine, or under coverage, as a sound recipe shows that is planned at this moment.
    """
    from trainctl.recipes import locate
    from trainctl.recipes.plan import plan

    if took < seconds:
        return True
    sound = []
    for _ in range(3):
        started = time.process_time()
        plan([str(locate.shipped_folder() / "digits" / "trades.toml")])
        sound.append(time.process_time() - started)
    return took < seconds * min(sound) / USUAL


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., RunDir]:
    """Make a run folder on digits, a few steps long; dotted keys change its recipe."""

    def make(name: str = "run", **changes: Any) -> RunDir:
        folder = tmp_path / name
        folder.mkdir()
        recipe = merged(TINY, {key.replace("__", "."): value for key, value in changes.items()})
        (folder / "recipe.toml").write_text(tomli_w.dumps(recipe))
        return RunDir(folder)

    return make


@contextmanager
def handlers() -> Iterator[None]:
    """The signal handlers of this process are put back afterwards."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def working(rundir: RunDir) -> Iterator[Lifecycle]:
    """Hold a run folder as the engine does, within this process."""
    with handlers(), Lifecycle(rundir) as life:
        yield life


def engine(rundir: RunDir) -> int:
    """All that `python -m engine` does on a folder, down to exit.json, within this process: seconds less than one of
    its own. Returns the exit code.
    """
    from engine import worker

    with handlers():
        return worker.train(rundir.path)


def carry_out(rundir: RunDir, until: int | None = None) -> None:
    """Carry out a run within this process, to its end, or stop it after `until` steps: cheaper than `run_engine`."""
    from engine import worker
    from engine.train import Interrupted

    with working(rundir) as life:
        if until is None:
            worker._run(life, rundir)
            return
        life.should_stop = lambda: life.step >= until  # type: ignore[method-assign]
        with pytest.raises(Interrupted):
            worker._run(life, rundir)


def run_engine(rundir: RunDir, *arguments: str, timeout: float = 300, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the real engine on a folder to its end."""
    return subprocess.run(
        [sys.executable, "-m", "engine", str(rundir.path), *arguments],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT, env={**os.environ, **env},
    )  # fmt: skip
