"""How long commands take to start, as ratios to `python -c pass` measured in the same minute.

    python benchmarks/startup.py [--runs 10000] [--compared 100] [--repeat 15]

Makes two homes with that many finished runs (made-up folders in the real layout), warms the index and the file cache,
then runs the commands in turn, so that a machine whose speed drifts disturbs all alike. Prints medians and ratios.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from made_up import ROOT, make_home

from trainctl.home import Home

NOTHING = "python -c pass"
TARGETS = {"--version": 4.0, "ls": 25.0, "compare": 30.0}
"""Times as long as NOTHING takes, at most: of `ls` at 10 000 runs and `compare` of 100."""
_LISTED = ("--version", "--help", "ls", "ls --json")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--compared", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=15)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        listed, compared = (make_home(Home(Path(folder, str(runs))), runs) for runs in (given.runs, given.compared))
        print(f"{date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, medians of {given.repeat}")
        print(f"{given.runs} runs; compare of {given.compared}")
        show(seconds(listed, compared, given.repeat))


def seconds(listed: Home, compared: Home, repeat: int) -> dict[str, float]:
    """Median seconds of NOTHING and of each command on one of the homes, `repeat` times in turn."""
    commands = {NOTHING: ([sys.executable, "-c", "pass"], listed)}
    commands |= {name: ([sys.executable, "-m", "trainctl", *name.split()], listed) for name in _LISTED}
    commands["compare"] = ([sys.executable, "-m", "trainctl", "compare"], compared)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeat + 2):  # the first two warm the caches
        for name, (command, home) in commands.items():
            began = time.perf_counter()
            subprocess.run(command, env=_environment(home), capture_output=True, check=True)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(values[2:]) for name, values in taken.items()}


def _environment(home: Home) -> dict[str, str]:
    """For this checkout, compiled as it is everywhere but where writing bytecode is forbidden."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONDONTWRITEBYTECODE", "NO_COLOR")}
    return {**kept, "PYTHONPATH": str(ROOT), "TRAINCTL_HOME": str(home.path)}


def show(taken: dict[str, float]) -> None:
    """A line a command, beside its target."""
    for name, median in taken.items():
        ratio, target = median / taken[NOTHING], TARGETS.get(name)
        goal = f"   target {target:g}{'' if ratio <= target else '   MISSED'}" if target else ""
        command = name if name == NOTHING else f"trainctl {name}"
        print(f"{command:38} {1000 * median:8.1f} ms {ratio:6.1f} x{goal}", flush=True)


if __name__ == "__main__":
    main()
