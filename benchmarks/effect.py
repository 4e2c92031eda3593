"""What TRAIN does for every method on the digits data set: each method and its twin, over seeds.

    python benchmarks/effect.py [--seeds 0-2] [--home DIR] [--output docs/effect.md]

Runs every adversarial `digits-*` recipe with --pair and writes the comparison as Markdown, with date and machine.
Recipes that are done already are not run again, so it may be stopped and started anew. About an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

TRAINCTL = [sys.executable, "-m", "trainctl"]
# Further forms of methods, which come last.
FORMS = ("fat-trades", "fat-mart", "ecas-trades", "ecas-awp", "las-awp", "trades-awp", "lbgat-at", "lbgat-alp")
# The best checkpoint alone: half of the time goes into evaluations.
LESS = ["--set", 'eval.checkpoints=["best"]', "--set", "run.fold=false"]


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--home", type=Path, default=Path("effect-home"))
    parser.add_argument("--output", type=Path, default=Path("docs/effect.md"))
    parser.add_argument("--report", action="store_true", help="run nothing; write the page from what is there")
    arguments = parser.parse_args()
    env = {**os.environ, "TRAINCTL_HOME": str(arguments.home)}
    for name in [] if arguments.report else recipes(env):
        done = [run for run in json.loads(tell(env, "ls", "--json")) if run["recipe"] == name]
        if not done or any(run["status"] != "done" for run in done):
            subprocess.run([*TRAINCTL, "run", name, "--pair", "--seeds", arguments.seeds, *LESS], env=env, check=True)
    pairs = json.loads(tell(env, "compare", "--json"))["pairs"]
    arguments.output.write_text(page(tell(env, "compare", "--format", "markdown"), pairs, arguments.seeds))


def recipes(env: dict[str, str]) -> list[str]:
    """Every adversarial recipe of digits on its small network; further forms of a method come last."""
    listed = [entry for entry in json.loads(tell(env, "recipes", "--json")) if entry["dataset"] == "digits"]
    names = [one["name"] for one in listed if one["method"] != "standard" and one["model"] == "small-cnn"]
    return sorted(names, key=lambda name: name.removeprefix("digits-") in FORMS)


def tell(env: dict[str, str], *words: str) -> str:
    """What a trainctl command prints."""
    return subprocess.run([*TRAINCTL, *words], env=env, check=True, capture_output=True, text=True).stdout


def page(table: str, pairs: list[dict[str, Any]], seeds: str) -> str:
    """The document: where and when, for which methods each difference is clear, and the table."""
    clear = {}
    for metric in ("natural", "pgd20", "cw20", "aa"):
        deltas = {pair["label"]: pair["delta"][metric] for pair in pairs}
        better = [name for name, delta in deltas.items() if (delta["low"] or 0) > 0]
        worse = [name for name, delta in deltas.items() if (delta["high"] or 0) < 0]
        clear[metric] = f"| {metric} | {', '.join(better) or '–'} | {', '.join(worse) or '–'} | {len(deltas)} |"
    from importlib.metadata import version

    return "\n".join(
        [
            "# What TRAIN does on digits, method by method",
            "",
            f"Written by `python benchmarks/effect.py` on {date.today()}: seeds {seeds}, {os.cpu_count()} cores, "
            f"torch {version('torch')}, Python {platform.python_version()}. Small networks, 1 258 training and 359 "
            "test images of 8×8 pixels, eps 0.25, 20 epochs, checkpoints chosen on a validation split. It shows that "
            "the methods work, and says nothing about larger images. Seconds an epoch were taken with two runs at a "
            "time on a shared machine: `trainctl reproduce 4` is the place for those. Attacks see the network as it is "
            "(`run.fold = false`): the default rounds otherwise, which alone moves means of three seeds by a point or "
            "two.",
            "",
            "A difference is called clear where the 95 % interval of the paired difference excludes zero. With few "
            "seeds that takes a large effect, and with this many comparisons one in twenty is clear by chance.",
            "",
            "| metric | TRAIN clearly better | TRAIN clearly worse | pairs |",
            "|---|---|---|---|",
            *clear.values(),
            "",
            table,
        ]
    )


if __name__ == "__main__":
    main()
