"""The command line with the real engine, as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from archives import write_cifar10

QUICK = ("--set", "eval.attacks=['pgd20']", "--set", "eval.examples=30", "--set", "eval.topology_support=30")


def trainctl(home: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainctl", *arguments],
        capture_output=True, text=True, timeout=240, env={**os.environ, "TRAINCTL_HOME": str(home), **env},
    )  # fmt: skip


def ls(home: Path) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(trainctl(home, "ls", "--json").stdout)
    return listed


@pytest.fixture(scope="module")
def cifar_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the CIFAR-10 pair of the README, trained on a small archive in the real format."""
    folder = tmp_path_factory.mktemp("cifar")
    write_cifar10(folder / "data", per_batch=20)
    done = trainctl(
        folder / "home", "run", "cifar10-trades", "--pair", "--set", "schedule.epochs=1",
        "--set", "model.arch=wrn-10-1", "--set", "data.verify=false", "--set", "standard.width=8",
        "--set", "eval.aa_examples=10", TRAINCTL_DATA=str(folder / "data"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "home"


def test_the_cifar10_pair_runs_from_a_real_archive(cifar_home: Path) -> None:
    runs = ls(cifar_home)
    assert [(run["recipe"], run["topology"], run["status"]) for run in runs] == [
        ("cifar10-trades", False, "done"),
        ("cifar10-trades", True, "done"),
    ]
    assert runs[0]["pair"] == runs[1]["pair"]
    assert all(
        {"natural", "pgd20", "cw20", "aa", "topo_natural", "topo_robust"} <= run["metrics"].keys() for run in runs
    )
    assert "l_tp" in runs[1]["metrics"]


def test_compare_pairs_them_and_marks_the_test_set_rule(cifar_home: Path) -> None:
    compared = json.loads(trainctl(cifar_home, "compare", "runs", "--json").stdout)
    (pair,) = compared["pairs"]
    assert pair["baseline"]["natural"]["n"] == pair["train"]["natural"]["n"] == pair["delta"]["natural"]["n"] == 1
    gap = pair["train"]["natural"]["mean"] - pair["baseline"]["natural"]["mean"]
    assert pair["delta"]["natural"]["mean"] == pytest.approx(gap)
    assert pair["paper"] is None  # another architecture than the paper's
    assert pair["differs"] == []
    for kind in ("table", "csv", "markdown", "latex"):
        shown = trainctl(cifar_home, "compare", "--format", kind)
        assert shown.returncode == 0
        assert shown.stdout.strip()
    assert "chosen on the test set" in trainctl(cifar_home, "compare").stdout


def test_reindex_gives_the_same_list_byte_for_byte(cifar_home: Path) -> None:
    before = trainctl(cifar_home, "ls", "--json").stdout
    for file in cifar_home.glob("index.db*"):
        file.unlink()
    assert trainctl(cifar_home, "reindex").returncode == 0
    assert trainctl(cifar_home, "ls", "--json").stdout == before


def test_three_mistakes_are_told_at_once_and_nothing_starts(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'extends = "digits-trades"\n\n[optim]\nlr = "fast"\n\n[schedule]\nepcohs = 3\n\n[attack]\neps = -1\n'
    )
    done = trainctl(tmp_path / "home", "run", str(recipe), "--pair")
    assert done.returncode == 2
    assert done.stdout == ""
    for line, key in ((4, "optim.lr"), (7, "schedule.epcohs"), (10, "attack.eps")):
        assert f"mine.toml:{line}: {key}" in done.stderr
    assert "did you mean 'epochs'?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home" / "runs").exists()


def test_a_missing_data_set_ends_with_3_and_says_where_to_get_it(tmp_path: Path) -> None:
    done = trainctl(
        tmp_path / "home", "run", "cifar100-at", "--set", "data.download=false", "--set", "model.arch=wrn-10-1",
        TRAINCTL_DATA=str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 3
    for piece in ("cifar-100-python.tar.gz", str(tmp_path), "University of Toronto"):
        assert piece in done.stdout + done.stderr


def test_json_lines_end_with_a_summary(tmp_path: Path) -> None:
    done = trainctl(tmp_path, "run", "digits-standard", "--set", "schedule.epochs=1", *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"start", "epoch", "eval"} <= {event["event"] for event in events[:-1]}
    assert len({event["run"] for event in events[:-1]}) == 1
    assert events[-1]["event"] == "summary"
    assert events[-1]["runs"][0]["status"] == "done"
    (run,) = ls(tmp_path)
    assert run["metrics"].keys() >= {"natural", "pgd20"}


def test_a_resumed_run_is_done_and_evaluated_again(tmp_path: Path) -> None:
    queued = trainctl(tmp_path, "run", "digits-at", "-d", "--set", "schedule.epochs=400", *QUICK)
    run = queued.stdout.split()[0]
    assert trainctl(tmp_path, "stop", run).returncode == 0
    assert ls(tmp_path)[0]["status"] == "killed"
    assert trainctl(tmp_path, "resume", run, "-d").returncode == 0
    assert ls(tmp_path)[0]["status"] in ("queued", "starting", "running")
    assert trainctl(tmp_path, "stop", run).returncode == 0
    assert trainctl(tmp_path, "rm", run, "--yes").returncode == 0
    assert ls(tmp_path) == []
