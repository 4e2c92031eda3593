"""A new method, a new term and a new data set are one file each, and nothing else is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

METHOD = '''
"""A toy: CE on natural plus CE on adversarial images."""
from dataclasses import dataclass
from typing import ClassVar

from engine.losses import cross_entropy
from engine.methods.base import Method
from engine.options import option


@dataclass(frozen=True)
class HalfAndHalf(Method):
    """Half natural, half adversarial cross-entropy."""

    forwards: ClassVar[tuple[str, ...]] = ("natural", "adversarial")
    share: float = option(0.5, ge=0.0, le=1.0, help="weight of the adversarial half")

    def losses(self, step):
        return {
            "clean": (1 - self.share) * cross_entropy(step.natural.logits, step.y),
            "ce": self.share * cross_entropy(step.adversarial.logits, step.y),
        }
'''

TERM = '''
"""A toy: features of M' on x' should be short."""
from dataclasses import dataclass

from engine.options import option
from engine.regularizers.base import Term


@dataclass(frozen=True)
class ShortFeatures(Term):
    """Mean square of the features."""

    weight: float = option(0.5, ge=0.0, help="weight of the loss")
    power: int = option(2, ge=1, help="exponent")

    def loss(self, step):
        return step.adversarial.features.abs().pow(self.power).mean()
'''

DATA = '''
"""A toy: four-by-four checkerboards with noise, in three classes."""
from dataclasses import dataclass

import torch

from engine.data.base import DataSource, Source, Split, Splits
from engine.options import option


@dataclass(frozen=True)
class Boards(DataSource):
    """Three kinds of noisy boards."""

    noise: int = option(40, ge=0, le=255, help="largest change of a pixel")

    def load(self, source: Source) -> Splits:
        random = torch.Generator().manual_seed(0)
        labels = torch.arange(240) % 3
        base = torch.stack([torch.full((8, 8), 40), torch.full((8, 8), 200), torch.eye(8, dtype=torch.int64) * 255])
        images = base[labels] + torch.randint(-self.noise, self.noise + 1, (240, 8, 8), generator=random)
        images = images.clamp(0, 255).to(torch.uint8).unsqueeze(1)
        return Splits(Split(images[:180], labels[:180]), Split(images[180:], labels[180:]), classes=3)
'''

RECIPE = """
title = "toys"
[data]
dataset = "boards"
noise = 30
[model]
width = 4
[standard]
arch = "small-cnn"
width = 4
[method]
name = "half-and-half"
share = 0.75
[terms.short-features]
weight = 0.01
[attack]
eps = 0.1
steps = 2
[schedule]
epochs = 2
milestones = []
[optim]
batch_size = 32
[eval]
attacks = ["pgd20"]
eps = 0.1
topology_k = 5
[run]
threads = 1
"""


def trainctl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TRAINCTL_PLUGINS": str(folder), "TRAINCTL_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "trainctl", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=env)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "half_and_half.py").write_text(METHOD)
    (tmp_path / "short_features.py").write_text(TERM)
    (tmp_path / "boards.py").write_text(DATA)
    (tmp_path / "toy.toml").write_text(RECIPE)
    return tmp_path


def test_a_toy_method_term_and_data_set_run_as_a_pair(folder: Path) -> None:
    done = trainctl(folder, "run", "toy.toml", "--pair", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["event"] == "summary"
    runs = json.loads(trainctl(folder, "ls", "--json").stdout)
    assert {run["method"] for run in runs} == {"half-and-half"}
    assert {run["dataset"] for run in runs} == {"boards"}
    assert sorted(run["topology"] for run in runs) == [False, True]
    assert all(0 <= run["metrics"]["pgd20"] <= run["metrics"]["natural"] <= 100 for run in runs)
    for run in runs:
        log = (folder / "home" / "runs" / run["id"] / "events.jsonl").read_text().splitlines()
        epoch = next(event for event in map(json.loads, log) if event["event"] == "epoch")
        assert epoch["loss_short-features"] > 0
    compared = json.loads(trainctl(folder, "compare", "--json").stdout)
    assert len(compared["pairs"]) == 1


def test_options_of_a_plugin_are_checked_like_any_other(folder: Path) -> None:
    (folder / "toy.toml").write_text(
        RECIPE.replace("share = 0.75", "share = 1.5\nshaer = 1")
        .replace("noise = 30", 'noise = "x"')
        .replace("weight = 0.01", "weight = -1.0\npower = 0")
    )
    done = trainctl(folder, "run", "toy.toml")
    assert done.returncode == 2
    for piece in (
        "toy.toml:5: data.noise",
        "toy.toml:13: method.share",
        "toy.toml:14: method.shaer",
        "toy.toml:16: terms.short-features.weight",
        "toy.toml:17: terms.short-features.power",
        "did you mean 'share'?",
    ):
        assert piece in done.stderr
    assert not (folder / "home" / "runs").exists() or not any((folder / "home" / "runs").iterdir())
