"""How long commands take to start, as ratios to `python -c pass` measured in the same minute.

    python benchmarks/startup.py [--runs 1000] [--repeat 15]

Makes a home with that many finished runs (made-up folders in the real layout), warms the index and the file cache,
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

from made_up import make_home

from trainctl.home import Home


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=15)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        make_home(Home(home), arguments.runs)
        measure(home, arguments.runs, arguments.repeat)


def measure(home: Path, runs: int, repeat: int) -> None:
    """Run every command `repeat` times in turn; print medians as ratios to the first."""
    trainctl = [sys.executable, "-m", "trainctl"]
    script = Path(sys.executable).parent / "trainctl"
    if script.exists():
        trainctl = [str(script)]
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], None),
        "trainctl --version": ([*trainctl, "--version"], 4),
        "trainctl --help": ([*trainctl, "--help"], None),
        f"trainctl ls ({runs} runs)": ([*trainctl, "ls"], 25),
        f"trainctl ls --json ({runs} runs)": ([*trainctl, "ls", "--json"], 25),
        f"trainctl compare ({runs} runs)": ([*trainctl, "compare"], None),
    }
    env = {**os.environ, "TRAINCTL_HOME": str(home)}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(repeat + 2):  # the first two warm the caches
        for name, (command, _target) in commands.items():
            started = time.perf_counter()
            subprocess.run(command, env=env, stdout=subprocess.DEVNULL, check=True)
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values[2:]) for name, values in seconds.items()}
    unit = medians["python -c pass"]
    print(f"{date.today()}, Python {platform.python_version()}, {os.cpu_count()} cores, medians of {repeat}")
    for name, (_, target) in commands.items():
        goal = f"  target {target}" if target else ""
        print(f"{name:38} {1000 * medians[name]:8.1f} ms {medians[name] / unit:6.1f} x{goal}")


if __name__ == "__main__":
    main()
