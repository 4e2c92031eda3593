"""Speed costs nothing: what fast runs come to, beside runs in float32 with every shortcut off.

    python benchmarks/quality.py [--quick] [--seeds 5] [--folder DIR]

Trains networks on digits, seed by seed, in two forms that differ in run.precision and run.fold alone, by the engine
itself: whole runs in run folders (kept, and gone on with, in --folder), of which the last checkpoint is evaluated.

    float32    run.precision = float32, run.fold = false, run.compile = off
    auto       the engine's default, which on a CPU is float32 folded for small-cnn
    bfloat16   run.precision = bfloat16, folded

Rounding alone sends two runs apart, so the differences of single seeds mean nothing. What is asked is whether their
mean is zero: over all runs of a form it must lie within 2 standard errors of it or be less than one test image, and
that of a single line within what a line passes by chance in one table of twenty. Then each trained network, of
either form, is attacked by both forms of the attack from the same starts, those of training and PGD-20: how many
images it misleads must agree within 1 % or within noise, its mean loss at x' within 1 %; both are looked at in float32.

Exits with 1 if something does not. Eight minutes of one core. --quick, a minute and a half, has two seeds, which say
nothing about accuracies: it judges the attacks alone.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import tomli_w
import torch
from torch import Tensor, nn

from engine import checkpoint, events, machine, worker
from engine.attacks.pgd import PGD
from engine.data.batches import to_float
from engine.evaluate.accuracy import evaluating
from engine.evaluate.protocols import attack, threat
from engine.losses import cross_entropy_per_sample, kl_divergence_per_sample
from engine.randomness import generator
from engine.recipe import check
from engine.rundir import RunDir
from trainctl.compare.statistics import t_quantile

PLAIN = {"precision": "float32", "fold": False, "compile": "off"}
FORMS: dict[str, dict[str, Any]] = {"float32": PLAIN, "auto": {}, "bfloat16": {"precision": "bfloat16"}}
NETWORKS: dict[str, dict[str, Any]] = {  # settings with which it learns in few steps
    "small-cnn": {"eps": 0.25, "lr": 0.1, "batch_size": 128, "epochs": 8},
    "resnet-18:8": {"eps": 0.15, "lr": 0.02, "batch_size": 64, "epochs": 5},
}
METRICS = ("natural", "pgd20")
WITHIN = 0.01  # of an attack's success and of its loss
FEWEST = 4  # seeds that accuracies are judged by


@dataclass(frozen=True)
class Line:
    """What is compared with the same in float32."""

    network: str
    method: str
    train: bool
    form: str

    def __str__(self) -> str:
        return f"{self.network:13}{self.method.upper() + (' + TRAIN' if self.train else ''):16}{self.form:10}"

    def recipe(self, seed: int, form: str) -> Any:
        """The recipe of one run."""
        arch, _, width = self.network.partition(":")
        own = NETWORKS[self.network]
        return check({
            "data": {"dataset": "digits"}, "method": {"name": self.method},
            "model": {"arch": arch, "width": int(width or 0)}, "standard": {"arch": "small-cnn"},
            "attack": {"eps": own["eps"], "step_size": own["eps"] / 5},
            "topology": {"enabled": self.train, "weight": 5.0, "ramp": True, "ramp_period": 0},
            "optim": {"lr": own["lr"], "batch_size": own["batch_size"], "weight_decay": 5e-4},
            "schedule": {"epochs": own["epochs"], "milestones": [own["epochs"] * 3 // 4 + 1]},
            "eval": {"attacks": ["pgd20"], "eps": own["eps"], "checkpoints": ["last"], "every": 1000,
                     "topology": False},
            "run": {"seed": seed, "device": "cpu", "threads": 1, **FORMS[form]},
        })  # fmt: skip

    def run(self, seed: int, form: str, home: Path) -> RunDir:
        """The finished run, carried out if it is not there yet. Exits where it did not come to its end."""
        rundir = RunDir(home / f"{self.network}-{self.method}-{self.train}-{form}-{seed}")
        rundir.path.mkdir(parents=True, exist_ok=True)
        text = tomli_w.dumps(self.recipe(seed, form).model_dump())
        if rundir.recipe.exists() and rundir.recipe.read_text() != text:
            sys.exit(f"{rundir.path} is a run with other settings: name another --folder")
        rundir.recipe.write_text(text)
        with (rundir.path / "stdout.log").open("a") as log, contextlib.redirect_stdout(log):
            code = worker.train(rundir.path)
        if code:
            sys.exit(f"{rundir.path} ended with exit code {code}: see its stdout.log")
        return rundir


LINES = (
    *(Line("small-cnn", method, train, form) for form in ("auto", "bfloat16")
      for method, train in (("at", False), ("trades", False), ("trades", True))),
    Line("resnet-18:8", "trades", True, "bfloat16"),
)  # fmt: skip
QUICK = (Line("small-cnn", "at", False, "auto"), Line("small-cnn", "trades", True, "bfloat16"))


@dataclass(frozen=True)
class Strike:
    """What an attack did to the test images: how many it misled, and the mean of its loss at x'."""

    misled: float
    loss: float


@dataclass(frozen=True)
class Found:
    """One seed of one line: accuracies in percent [form, metric], and strikes [attack, form], float32 first."""

    accuracies: dict[str, tuple[float, float]]
    strikes: dict[str, list[tuple[Strike, Strike]]]


def measure(line: Line, seed: int, home: Path) -> Found:
    """Train in both forms, and attack both networks in both forms."""
    runs = {form: line.run(seed, form, home) for form in ("float32", line.form)}
    values = {form: accuracies(run) for form, run in runs.items()}
    exact, fast = (trainer(line.recipe(seed, form)) for form in runs)
    training = cast(PGD, exact.attack), cast(PGD, fast.attack)
    evaluation = attack(threat(exact.recipe.eval, "pgd20", exact.splits.classes))
    assert evaluation is not None
    strikes: dict[str, list[tuple[Strike, Strike]]] = {"training": [], "PGD-20": []}
    x, y = to_float(exact.splits.test.images), exact.splits.test.labels
    for run in runs.values():
        path = run.checkpoint("last")
        exact.networks.restore(checkpoint.load(path)[0], path)
        network = exact.networks.adversarial
        plain = strike(network, x, y, training[0], contextlib.nullcontext())
        strikes["training"].append((plain, strike(network, x, y, training[1], fast.forward.precision())))
        plain = strike(network, x, y, replace(evaluation, fold=False), contextlib.nullcontext())
        strikes["PGD-20"].append((plain, strike(network, x, y, evaluation, contextlib.nullcontext())))
    return Found({metric: (values["float32"][metric], values[line.form][metric]) for metric in METRICS}, strikes)


def accuracies(run: RunDir) -> dict[str, float]:
    """What the run's own evaluation says of its last checkpoint."""
    with open(run.events, "rb") as lines:
        return {event["metric"]: event["value"] for event in events.of_kind(lines, "eval")}


def trainer(recipe: Any) -> Any:
    """Data, networks and training attack of a run, as the engine makes them."""
    return worker.make_trainer(recipe, machine.prepare(recipe.run, recipe.model), cast(Any, None), cast(Any, None))


def strike(network: nn.Module, x: Tensor, y: Tensor, pgd: PGD, precision: Any) -> Strike:
    """Attack in `precision`, from starts that are the same for every form, and look at x' in float32."""
    with evaluating(network):
        with precision:
            images = pgd(network, x, y, generator("cpu", 0, "quality")).images
        with torch.no_grad():
            logits = network(images).logits
            climbed = kl_divergence_per_sample(network(x).logits, logits) if pgd.loss == "kl" else None
            loss = cross_entropy_per_sample(logits, y) if climbed is None else climbed
    return Strike(float((logits.argmax(1) != y).sum()), float(loss.mean()))


def difference(pairs: list[tuple[float, float]], probability: float) -> tuple[float, float, float]:
    """Of fast - float32: mean, standard deviation, and what the mean stays within with `probability` if it is 0."""
    each = [fast - plain for plain, fast in pairs]
    spread = statistics.stdev(each)
    error = spread / math.sqrt(len(each))
    return statistics.mean(each), spread, error * t_quantile((1 + probability) / 2, len(each) - 1)


def report(found: dict[Line, list[Found]], image: float) -> Iterator[bool]:
    """Print both tables; for each comparison whether it holds. `image` is one test image in percent."""
    once = 1 - 0.05 / (len(found) * len(METRICS))  # so that one table in twenty has a line outside by chance
    few = len(next(iter(found.values()))) < FEWEST
    print(f"\n{'fast - float32, percent, mean ± sd (allowed)':41}{'natural':>34}{'pgd20':>34}")
    for line, seeds in found.items():
        text = []
        for metric in METRICS:
            pairs = [one.accuracies[metric] for one in seeds]
            mean, spread, allowed = difference(pairs, once)
            yield few or abs(mean) <= max(allowed, image)
            usual = statistics.mean(plain for plain, _ in pairs)
            text.append(f"{usual:13.1f} {mean:+6.2f} ± {spread:4.2f} ({allowed:5.2f})")
        print(f"{line!s:41}{''.join(f'{one:>34}' for one in text)}")
    for form in dict.fromkeys(line.form for line in found):
        text = []
        for metric in METRICS:
            pairs = [one.accuracies[metric] for line, seeds in found.items() if line.form == form for one in seeds]
            mean, spread, _ = difference(pairs, once)
            allowed = 2 * spread / math.sqrt(len(pairs))
            yield few or abs(mean) <= max(allowed, image)
            text.append(f"{mean:+6.2f} ± {spread:4.2f} ({allowed:5.2f})")
        print(f"{f'all {form}, {len(pairs)} pairs of runs':41}{''.join(f'{one:>34}' for one in text)}")

    print(f"\n{'the same networks under both attacks':48}{'images misled':>31}{'mean loss':>20}")
    for line, seeds in found.items():
        for name in ("training", "PGD-20"):
            strikes = [pair for one in seeds for pair in one.strikes[name]]
            misled = [(plain.misled, fast.misled) for plain, fast in strikes]
            loss, quick_loss = (statistics.mean(pair[side].loss for pair in strikes) for side in (0, 1))
            plain, mean = statistics.mean(pair[0] for pair in misled), difference(misled, 0.95)
            yield abs(quick_loss / loss - 1) <= WITHIN
            yield abs(mean[0]) <= max(mean[2], WITHIN * plain)
            print(f"{f'{line!s} {name}':48}{plain:9.1f} {mean[0]:+6.2f} ± {mean[1]:4.2f} ({mean[2]:5.2f})"
                  f"{loss:12.4f} {quick_loss / loss - 1:+7.2%}")  # fmt: skip


def main() -> None:
    """Train, attack, print, and fail if something does not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="2 or more")
    parser.add_argument("--quick", action="store_true", help="two lines, two seeds")
    parser.add_argument("--folder", type=Path, help="keep the runs here; those that are done are not run again")
    arguments = parser.parse_args()
    seeds = 2 if arguments.quick else max(2, arguments.seeds)
    print(f"{date.today()}, {os.cpu_count()} cores, one thread, torch {torch.__version__}, "
          f"Python {platform.python_version()}; digits, seeds 1-{seeds}")  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        home, begun = arguments.folder or Path(temporary), time.process_time()
        found: dict[Line, list[Found]] = {}
        for line in QUICK if arguments.quick else LINES:
            found[line] = [measure(line, seed, home) for seed in range(1, seeds + 1)]
            print(f"{line!s} {time.process_time() - begun:6.0f} s", file=sys.stderr, flush=True)
    test = trainer(next(iter(found)).recipe(1, "auto")).splits.test
    held = list(report(found, 100 / len(test)))
    print(f"\n{held.count(False)} of {len(held)} comparisons do not hold")
    sys.exit(int(not all(held)))


if __name__ == "__main__":
    main()
