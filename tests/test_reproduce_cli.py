"""`trainctl reproduce` as a process: what it starts, what it leaves alone, what it prints, and that nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import TINY, merged
from fake_trainctl import cli, environment, starts, tidy, until
from test_end_to_end import trainctl

from engine.events import read
from engine.rundir import RunDir
from trainctl.home import Home

SMALLEST = (
    "--scale", "tiny", "--seeds", "0", "--set", "schedule.epochs=6", "--set", "data.train_examples=400",
    "--set", "schedule.milestones=[]", "--set", 'eval.attacks=["pgd20"]',
    "--set", "eval.topology=false", "--set", "eval.examples=60",
)  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def test_a_dry_run_starts_nothing(home: Home) -> None:
    said = cli(home, "reproduce", "11", "--scale", "tiny", "--dry-run")
    assert said.returncode == 0 and said.stderr == ""
    assert "digits-at --set topology.enabled=true --set topology.variant=star" in said.stdout
    assert "3 rows, 12 cells, 9 runs (0 done), about " in said.stdout
    found = json.loads(cli(home, "reproduce", "11", "--scale", "full", "--dry-run", "--json").stdout)
    assert set(found) >= {"table", "scale", "rows", "cells", "runs", "done", "seconds"}
    assert (len(found["rows"]), len(found["cells"]), found["runs"], found["done"]) == (3, 12, 3, 0)
    assert found["seconds"] is None
    assert found["rows"][0]["runs"] == [{"seed": 1, "id": None, "status": "missing"}]
    assert "821 s" in cli(home, "reproduce", "11", "--dry-run").stdout
    assert home.run_dirs() == []


def test_to_the_end_and_never_again(home: Home) -> None:
    at = cli(home, "run", "digits-at", "--seeds", "0")
    assert at.returncode == 0, at.stderr
    done = cli(home, "reproduce", "11", "--scale", "tiny", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert "3 rows, 12 cells, 3 runs (1 done)" in done.stderr
    assert "Vanilla AT + TRAIN*" in done.stdout and "NOT the paper's setting" in done.stdout
    assert len(home.run_dirs()) == 3
    for form in ("table", "json", "csv", "markdown"):
        again = cli(home, "reproduce", "11", "--scale", "tiny", "--seeds", "0", "--format", form)
        assert again.returncode == 0 and again.stderr == "" and "TRAIN*" in again.stdout.replace("\\", "")
    assert [len(starts(run)) for run in home.run_dirs()] == [1, 1, 1]
    found = json.loads(cli(home, "reproduce", "11", "--scale", "tiny", "--json").stdout)  # seeds 1 and 2 are missing
    assert found["runs"] == found["done"] == 9
    assert [run["status"] for row in found["rows"] for run in row["runs"]] == ["done"] * 9


def test_a_run_that_diverged_is_told_and_the_table_printed(home: Home) -> None:
    assert cli(home, "reproduce", "11", "--scale", "tiny", "--seeds", "0").returncode == 0
    [run] = [run for run in home.run_dirs() if "star" in run.json("run.json")["name"]]
    run.write_json("exit.json", {"status": "diverged", "code": 1, "reason": "loss became nan"})
    done = cli(home, "reproduce", "11", "--scale", "tiny", "--seeds", "0")
    assert done.returncode == 1
    assert "loss became nan" in done.stderr and "seed 0: diverged" in done.stdout
    assert [len(starts(run)) for run in home.run_dirs()] == [1, 1, 1]
    assert cli(home, "reproduce", "11", "--scale", "tiny", "--seeds", "0", "--no-run").returncode == 0


@pytest.mark.parametrize(
    "arguments", [["13"], ["0"], ["3", "--scale", "huge"], ["3", "--seeds", "x"], ["3", "--set", "optim.rl=1"], []]
)
def test_wrong_usage_starts_nothing(home: Home, arguments: list[str]) -> None:
    done = cli(home, "reproduce", *arguments)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert home.run_dirs() == []


def test_it_fits_into_80_columns(home: Home) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "trainctl", "reproduce", "6", "--scale", "tiny", "--no-run"],
        env={**environment(home), "COLUMNS": "80"}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert max(map(len, shown.splitlines())) <= 80
    assert "Vanilla AT + LBGAT + TRAIN" in shown and "66.08" in shown


# --- with the real engine ---------------------------------------------------------------------------------------


def snapshot(run: RunDir) -> dict[str, int]:
    """When each file of a run was last written."""
    return {str(file.relative_to(run.path)): file.stat().st_mtime_ns for file in run.path.rglob("*") if file.is_file()}


def begin(home: Home, table: str) -> subprocess.Popen[str]:
    """The command in a session of its own, as a terminal's job is."""
    return subprocess.Popen(
        [sys.executable, "-m", "trainctl", "reproduce", table, *SMALLEST], env=environment(home),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def with_status(home: Home, status: str) -> list[RunDir]:
    return [run for run in home.run_dirs() if run.status() == status]


def in_the_middle(view: subprocess.Popen[str], home: Home, done: int) -> RunDir:
    """Wait until `done` runs are done and another has a checkpoint to go on from.

    That one is returned with its process held (SIGSTOP), so that it cannot end before the test has ended it.
    """
    held: list[RunDir] = []

    def there() -> bool:
        assert view.poll() is None, view.communicate()
        for run in with_status(home, "running"):
            if run.checkpoint("last").exists():
                os.kill(run.json("heartbeat.json")["pid"], signal.SIGSTOP)
                if b'"eval"' not in run.events.read_bytes():
                    held.append(run)
                    break
                os.kill(run.json("heartbeat.json")["pid"], signal.SIGCONT)
        return bool(held)

    until(lambda: len(with_status(home, "done")) >= done, 300)
    until(there, 300)
    return held[0]


def interrupted(view: subprocess.Popen[str], engine: RunDir) -> None:
    """Ctrl-C. Whoever is asked to stop is no longer held, and may have ended before anybody sees it stopping."""
    view.send_signal(signal.SIGINT)
    said, told = view.communicate(timeout=300)
    assert view.returncode == 130 and said == "" and "the same command goes on" in told
    assert engine.status() == "killed"


def killed(view: subprocess.Popen[str], engine: RunDir) -> None:
    """The engine and the command end at once; what else runs goes on."""
    os.kill(engine.json("heartbeat.json")["pid"], signal.SIGKILL)
    view.kill()
    view.wait()
    until(lambda: engine.status() in ("killed", "lost"), 300)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "rows", "end", "labels"),
    [
        ("3", 6, interrupted, ["MCA", "Vanilla AT + RKD", "Vanilla AT + CRD", "Vanilla AT + TRAIN'"]),
        ("6", 9, killed, ["Standard training", "Vanilla AT + LBGAT", "TRADES + LBGAT + TRAIN"]),
    ],
)
def test_cut_short_it_goes_on(
    home: Home, table: str, rows: int, end: Callable[[subprocess.Popen[str], RunDir], None], labels: list[str]
) -> None:
    view = begin(home, table)
    engine = in_the_middle(view, home, 1)
    end(view, engine)
    kept = {run.id: snapshot(run) for run in with_status(home, "done")}
    ids = {run.id for run in home.run_dirs()}
    assert len(ids) == rows and 1 <= len(kept) < rows

    done = trainctl(home.path, "reproduce", table, *SMALLEST)
    assert done.returncode == 0, done.stderr
    assert {run.id for run in home.run_dirs()} == ids
    assert len(with_status(home, "done")) == rows
    assert {id: snapshot(home.run(id)) for id in kept} == kept
    assert json.loads(engine.attempts.read_text().splitlines()[-1])["resumed_from"] is not None
    assert all(label in done.stdout for label in labels)
    again = trainctl(home.path, "reproduce", table, *SMALLEST, "--json")
    cells = json.loads(again.stdout)["cells"]
    assert again.stderr == "" and {cell["metric"] for cell in cells if cell["mean"] is not None} == {"natural", "pgd20"}


def test_recipes_are_timed_side_by_side(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    (run.path / "timed").mkdir(parents=True)
    import tomli_w

    changes = [{"method.name": "at"}, {"method.name": "at", "topology.enabled": True}]
    for index, change in enumerate(changes):
        text = tomli_w.dumps(merged(TINY, change))
        (run.path / "timed" / f"{index}.toml").write_text(text)
        run.recipe.write_text(text)
    code = (
        "import sys; from pathlib import Path; from engine import timing; "
        "timing.SECONDS = 0.0; sys.exit(timing.measure(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert run.status() == "done" and not run.checkpoints.exists()
    found = [event for _, event in read(run.events.read_bytes())]
    timed = [event for event in found if event["event"] == "timing"]
    assert [event["setting"] for event in timed] == [0, 1]
    assert not any(event["event"] in ("epoch", "eval") for event in found)
    for event in timed:
        assert event["rounds"] == 5 and event["steps"] == 15 and len(event["round_seconds"]) == 5
        assert event["seconds_per_epoch"] == pytest.approx(event["seconds_per_step"] * event["steps_per_epoch"])
    assert timed[1]["seconds_per_step"] > timed[0]["seconds_per_step"]  # M costs something
