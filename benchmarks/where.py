"""Where TRAIN helps: TRADES and AT, by network, size of the training set, lambda, and what L_TP sees of M' (A1).

    python benchmarks/where.py [--seeds 0-1] [--home DIR] [--output docs/where.md] [--only NAME,…] [--report]

Runs each setting's baseline and its twins with lambda 5 and 20 on x', and 5 on x, and writes what TRAIN changed, with
date and machine. What is done already is not run again, so it may be stopped and started anew; --report writes the page
from what is there. All of it takes about two hours on two cores. Needs Fashion-MNIST, as `trainctl doctor` says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

TRAINCTL = [sys.executable, "-m", "trainctl"]
METRICS = ("natural", "pgd20", "cw20")
COMMON = {
    "eval.attacks": '["pgd20", "cw20"]', "eval.checkpoints": '["best"]', "eval.topology": "false",
    "run.precision": "float32", "run.fold": "false",
}  # fmt: skip
RESNET = {"model.arch": "resnet-18", "model.width": "16", "standard.arch": "resnet-18", "standard.width": "16"}
FASHION = {
    "model.width": "16", "standard.width": "16", "eval.examples": "1000", "run.threads": "1", "data.validation": "0.1",
}  # fmt: skip
SETTINGS: dict[str, tuple[str, dict[str, str]]] = {
    "digits, small CNN": ("digits", {}),
    "Fashion-MNIST 1 000, small CNN": ("fashion-mnist", FASHION | {"data.train_examples": "1000"}),
    "digits, ResNet-18 of width 16": (
        "digits", RESNET | {"schedule.epochs": "10", "schedule.milestones": "[8, 10]"},
    ),
    "Fashion-MNIST 5 000, small CNN": (
        "fashion-mnist",
        FASHION | {"data.train_examples": "5000", "schedule.epochs": "8", "schedule.milestones": "[6, 8]"},
    ),
    "Fashion-MNIST 20 000, small CNN": (
        "fashion-mnist",
        FASHION | {"data.train_examples": "20000", "schedule.epochs": "4", "schedule.milestones": "[3, 4]"},
    ),
}  # fmt: skip
LEARNT = 60.0  # percent natural accuracy below which a baseline is said to have hardly learnt
TWINS = [
    ["--pair", "--grid", "topology.weight=5,20"],
    ["--train", "--set", "topology.weight=5", "--set", "topology.source=natural"],
]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0-1")
    parser.add_argument("--home", type=Path, default=Path("where-home"))
    parser.add_argument("--output", type=Path, default=Path("docs/where.md"))
    parser.add_argument("--only", default="", help="numbers of settings, from 0, separated by commas")
    parser.add_argument("--report", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    env = {**os.environ, "TRAINCTL_HOME": str(arguments.home)}
    chosen = [int(part) for part in arguments.only.split(",") if part] or list(range(len(SETTINGS)))
    for number in [] if arguments.report else chosen:
        run(number, arguments.seeds, env)
    pairs = json.loads(tell(env, "compare", "--json"))["pairs"]
    names = {found["id"]: found["name"] for found in json.loads(tell(env, "ls", "--json"))}
    for pair in pairs:
        pair["train"]["name"] = names[pair["train"]["runs"][0]]
    arguments.output.write_text(page(pairs, arguments.seeds), encoding="utf-8")


def run(number: int, seeds: str, env: dict[str, str]) -> None:
    """All runs of one setting that are not done yet, for both methods."""
    dataset, changes = list(SETTINGS.values())[number]
    listed = json.loads(tell(env, "ls", "--json"))
    for method in ("trades", "at"):
        for index, twin in enumerate(TWINS):
            name = f"{number} {method} {index}"
            mine = [run for run in listed if run["name"].startswith(name)]
            if mine and all(run["status"] == "done" for run in mine):
                continue
            given = [f"--set={key}={value}" for key, value in (COMMON | changes).items()]
            command = ["run", f"{dataset}-{method}", "--name", name, "--seeds", seeds, *twin, *given]
            subprocess.run([*TRAINCTL, *command], env=env, check=True)


def tell(env: dict[str, str], *words: str) -> str:
    """What a trainctl command prints."""
    return subprocess.run([*TRAINCTL, *words], env=env, check=True, capture_output=True, text=True).stdout


def page(pairs: list[dict[str, Any]], seeds: str) -> str:
    """The document: where and when, and a table for each setting."""
    lines = [
        "# Where TRAIN helps: a small study", "",
        f"Written by `python benchmarks/where.py` on {date.today()}: seeds {seeds}, {os.cpu_count()} cores, "
        f"torch {version('torch')}, Python {platform.python_version()}. Small networks, few epochs, eps 0.25 (digits) "
        "and 0.1 (Fashion-MNIST); the checkpoint is chosen on a validation split, and Fashion-MNIST is tested on "
        "1 000 images. The first two numbers of a row are the baseline's and the twin's mean accuracy in percent, the "
        "third is the mean difference over seeds of the same number, with each seed's difference behind it. With two "
        "seeds no interval says much; the signs that agree over rows do. All in float32, attacks on the network "
        "as it is (`run.precision`, `run.fold`).", "",
    ]  # fmt: skip
    lines += [summary(pairs), ""]
    missing = []
    for number, (title, (_, changes)) in enumerate(SETTINGS.items()):
        mine = [pair for pair in pairs if pair["label"].startswith(f"{number} ")]
        if not mine:
            missing.append(title)
            continue
        settings = ", ".join(f"`{key} = {value}`" for key, value in changes.items()) or "as in the recipe"
        lines += [f"## {title}", "", f"Settings: {settings}.", ""]
        lines += ["| | lambda | L_TP sees | " + " | ".join(METRICS) + " |", "|---|---|---|" + "---|" * len(METRICS)]
        lines += [row(pair) for pair in mine]
        lines.append("")
    if missing:
        lines += [f"Planned by the same command and not run yet: {'; '.join(missing)}.", ""]
    return "\n".join(lines)


def summary(pairs: list[dict[str, Any]]) -> str:
    """What the rows come to: for each data set how many twins are better or worse in all seeds."""
    said = []
    for dataset in ("digits", "Fashion-MNIST"):
        numbers = {number for number, title in enumerate(SETTINGS) if title.startswith(dataset)}
        rows = [pair for pair in pairs if int(pair["label"].split()[0]) in numbers]
        if not rows:
            continue
        counts = []
        for metric in ("natural", "pgd20"):
            each = [differences(pair, metric) for pair in rows]
            better, worse = (sum(all(sign * d > 0 for d in found) for found in each) for sign in (1, -1))
            counts.append(f"{metric} is higher in {better} and lower in {worse}")
        said.append(f"of {len(rows)} twins on {dataset} {' and '.join(counts)}")
    failed = sum(hardly(pair) for pair in pairs)
    known = f" {failed} of the rows are marked †: their baseline has hardly learnt." * bool(failed)
    return f"**In both seeds**: {'; '.join(said)}.{known}"


def hardly(pair: dict[str, Any]) -> bool:
    """Whether the baseline has not learnt enough for a difference to say what TRAIN does to a network that has."""
    return bool(pair["baseline"]["natural"]["mean"] < LEARNT)


def differences(pair: dict[str, Any], metric: str) -> list[float]:
    """TRAIN's of each seed."""
    return [b - a for a, b in zip(pair["baseline"][metric]["values"], pair["train"][metric]["values"], strict=True)]


def row(pair: dict[str, Any]) -> str:
    """One line: the method, lambda, the reading, and each metric as `baseline → twin (difference: each seed)`."""
    name = pair["train"]["name"]
    method, sees = name.split(" ")[1], "x′" if "weight=" in name else "x"
    weight = "20" if "weight=20" in name else "5"
    cells = []
    for metric in METRICS:
        before, after = pair["baseline"][metric], pair["train"][metric]
        each = ", ".join(f"{difference:+.1f}" for difference in differences(pair, metric))
        cells.append(f"{before['mean']:.1f} → {after['mean']:.1f} ({pair['delta'][metric]['mean']:+.1f}: {each})")
    return f"| {method}{' †' * hardly(pair)} | {weight} | {sees} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
