"""The engine as a process: it trains, evaluates, is killed, goes on, and says how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, carry_out, engine, run_engine
from safetensors import safe_open
from safetensors.torch import load_file

from engine import events
from engine import train as train_module
from engine.rundir import RunDir

Make = Callable[..., RunDir]


def read_events(rundir: RunDir) -> list[dict[str, Any]]:
    return [event for _, event in events.read(rundir.events.read_bytes())]


def timeless(rundir: RunDir) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k not in events.TIMES} for event in read_events(rundir)]


def weights(rundir: RunDir, which: str = "last") -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(rundir.checkpoint(which)).items()}


def evaluations(rundir: RunDir) -> dict[str, str]:
    return {file.name: file.read_text() for file in sorted(rundir.evaluations.glob("*.csv"))}


def test_a_run_trains_and_evaluates(make_folder: Make) -> None:
    rundir = make_folder(topology__enabled=True)
    done = run_engine(rundir)
    assert done.returncode == 0, done.stderr
    assert rundir.status() == "done"

    log = read_events(rundir)
    assert {e["event"] for e in log} == {"start", "stage", "step", "epoch", "checkpoint", "eval", "end"}
    epochs = [e for e in log if e["event"] == "epoch"]
    assert [e["epoch"] for e in epochs] == [1, 2]
    for key in (
        "loss",
        "loss_robust",
        "loss_topology",
        "loss_standard",
        "l_tp",
        "lr",
        "train_natural",
        "train_adversarial",
    ):
        assert key in epochs[0]
    assert epochs[0]["loss"] == pytest.approx(epochs[0]["loss_robust"] + epochs[0]["loss_topology"])
    assert epochs[0]["loss_robust"] == pytest.approx(epochs[0]["loss_ce"] + epochs[0]["loss_kl"])
    evals = {(e["checkpoint"], e["metric"]): e for e in log if e["event"] == "eval"}
    assert {m for _, m in evals} == {"natural", "pgd20", "topo_natural", "topo_robust", "l_tp"}
    assert {c for c, _ in evals} == {"best", "last"}
    assert evals["best", "pgd20"]["eps"] == 0.2
    assert evals["best", "pgd20"]["n"] == 60
    assert "pgd10 on validation" in evals["best", "natural"]["rule"]

    rows = (rundir.evaluations / "best-pgd20.csv").read_text().splitlines()
    correct = [row.split(",")[-1] for row in rows[1:]]
    assert len(correct) == 60
    assert 100 * correct.count("1") / 60 == pytest.approx(evals["best", "pgd20"]["value"])


def test_a_finished_run_is_left_alone(make_folder: Make) -> None:
    rundir = make_folder(schedule__epochs=1)
    assert engine(rundir) == 0
    before = rundir.events.read_bytes()
    assert engine(rundir) == 0
    assert rundir.events.read_bytes() == before


def test_checkpoints_hold_no_pickle_and_name_their_rule(make_folder: Make) -> None:
    rundir = make_folder(schedule__epochs=1)
    carry_out(rundir)
    assert sorted(p.name for p in rundir.checkpoints.iterdir()) == ["best.safetensors", "last.safetensors"]
    with safe_open(rundir.checkpoint("best"), framework="pt") as file:
        state = json.loads(file.metadata()["state"])
    assert state["rule"] == "best pgd10 on validation"


def test_from_a_damaged_checkpoint_it_goes_on_with_the_one_before(
    make_folder: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_folder(topology__enabled=True, schedule__epochs=3)
    assert engine(run) == 0
    whole = weights(run), weights(run, "best"), timeless(run), evaluations(run)
    last = run.checkpoint("last")
    data = last.read_bytes()
    last.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # as if the disk had lost a bit
    (run.checkpoints / ".last.safetensors.7.tmp").write_bytes(b"left by a process that was killed")
    (run.path / "exit.json").unlink()
    capfd.readouterr()
    assert engine(run) == 0 and "last.safetensors: damaged checkpoint" in capfd.readouterr().out
    assert json.loads(run.attempts.read_text().splitlines()[-1])["resumed_from"] > 0
    assert (weights(run), weights(run, "best"), timeless(run), evaluations(run)) == whole
    names = ["best.safetensors", "last.safetensors", "last.safetensors.damaged", "last.safetensors.previous"]
    assert sorted(path.name for path in run.checkpoints.iterdir()) == names


def test_a_pair_differs_in_the_regulariser_alone(make_folder: Make) -> None:
    """With weight 0 the twin must take exactly the baseline's path, although a second network trains beside it."""
    baseline = make_folder("baseline")
    twin = make_folder("twin", topology__enabled=True, topology__weight=0.0)
    carry_out(baseline)
    carry_out(twin)
    model = {k: v for k, v in weights(baseline).items() if k.startswith("model.")}
    assert model == {k: v for k, v in weights(twin).items() if k.startswith("model.")}


def test_threads_and_dropout_leave_a_pair_equal(make_folder: Make) -> None:
    recipe = {"model__arch": "wrn-10-1", "model__dropout": 0.3, "data__train_examples": 40, "schedule__epochs": 1,
              "standard__arch": "wrn-10-1", "standard__dropout": 0.2, "eval__topology": False}  # fmt: skip
    baseline = make_folder("baseline", **recipe)
    twin = make_folder("twin", topology__enabled=True, topology__weight=0.0, **recipe)
    carry_out(baseline)
    carry_out(twin)
    model = {k: v for k, v in weights(baseline).items() if k.startswith("model.")}
    assert model == {k: v for k, v in weights(twin).items() if k.startswith("model.")}


# Compiling takes most of a minute, so it is tried on the method with the fewest graphs.
@pytest.mark.parametrize(
    "settings",
    [
        {"run__compile": "on", "method__name": "standard", "eval__best_by": "natural", "data__train_examples": 64},
        {"run__precision": "bfloat16", "topology__enabled": True},
    ],
)
def test_compiled_and_half_precision_runs_learn_alike(make_folder: Make, settings: dict[str, Any]) -> None:
    settings |= {"eval__topology": False, "eval__attacks": []}
    plain = make_folder("plain", **{k: v for k, v in settings.items() if not k.startswith("run__")})
    other = make_folder("other", **settings)
    carry_out(plain)
    if "run__compile" in settings:  # what a compiler leaves behind belongs into a process of its own
        done = run_engine(other, timeout=280)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        carry_out(other)
    start = read_events(other)[0]
    assert (start["compiled"], start["precision"]) in ((True, "float32"), (False, "bfloat16"))
    losses = [[e["loss"] for e in read_events(run) if e["event"] == "epoch"] for run in (plain, other)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert not any(e["event"] == "warning" for e in read_events(other))


def test_a_machine_without_a_compiler_trains_all_the_same(make_folder: Make) -> None:
    rundir = make_folder(run__compile="on", schedule__epochs=1, eval__attacks=[], eval__topology=False)
    done = run_engine(rundir, CXX="/nowhere/c++", TORCHINDUCTOR_FORCE_DISABLE_CACHES="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert any(e["event"] == "warning" and "torch.compile failed" in e["message"] for e in read_events(rundir))


def test_divergence_is_a_status_with_a_hint(make_folder: Make) -> None:
    rundir = make_folder(optim__lr=1e30)
    assert engine(rundir) == 1
    ended = rundir.json("exit.json")
    assert ended["status"] == "diverged"
    assert "loss became" in ended["reason"]
    assert "optim.lr" in ended["hint"]
    assert read_events(rundir)[-1]["status"] == "diverged"


def test_out_of_memory_is_a_status_with_a_hint(make_folder: Make) -> None:
    rundir = make_folder(model__arch="wrn-40-20", model__width=0, data__train_examples=0)
    script = (
        "import resource, sys, runpy; import torch, sklearn.datasets;"
        "used = int(open('/proc/self/statm').read().split()[0]) * 4096;"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 600 * 2**20,) * 2);"
        f"sys.argv = ['engine', {str(rundir.path)!r}]; runpy.run_module('engine', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    ended = rundir.json("exit.json")
    assert (done.returncode, ended["status"]) == (1, "oom"), done.stderr
    assert "batch_size" in ended["hint"]


def test_a_missing_data_set_says_what_to_do(make_folder: Make, tmp_path: Path) -> None:
    rundir = make_folder(data__dataset="cifar10", data__root=str(tmp_path), data__download=False)
    code = engine(rundir)
    ended = rundir.json("exit.json")
    assert (code, ended["status"]) == (3, "failed")
    assert str(tmp_path) in ended["reason"] + ended["hint"]
    assert "cifar-10" in ended["reason"] + ended["hint"]


def test_a_letter_that_cannot_be_printed_ends_no_run(make_folder: Make, tmp_path: Path) -> None:
    """Nor does it keep it from saying how it ended."""
    rundir = make_folder(**{"data.dataset": "npz", "data.path": str(tmp_path / "☃.npz")})
    assert run_engine(rundir, PYTHONIOENCODING="ascii").returncode == 3
    assert rundir.json("exit.json")["status"] == "failed" and "☃.npz" in rundir.json("exit.json")["reason"]


def test_a_signal_checkpoints_first(make_folder: Make) -> None:  # the other signals are in test_kills.py
    rundir = make_folder(schedule__epochs=500)
    process = subprocess.Popen([sys.executable, "-m", "engine", str(rundir.path)], cwd=ROOT)
    wait_for(lambda: rundir.events.exists() and b'"step"' in rundir.events.read_bytes())
    assert rundir.status() == "running"
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    assert rundir.json("exit.json")["status"] == "killed"
    assert rundir.checkpoint("last").exists()


def test_only_one_process_works_on_a_run(make_folder: Make) -> None:
    rundir = make_folder(schedule__epochs=500)
    process = subprocess.Popen([sys.executable, "-m", "engine", str(rundir.path)], cwd=ROOT)
    try:
        wait_for(lambda: (rundir.path / "heartbeat.json").exists())
        second = run_engine(rundir)
        assert second.returncode == 2
        assert "another process" in second.stderr
        assert rundir.status() == "running"
    finally:
        process.kill()
        process.wait()
    assert rundir.status() == "lost"


def test_a_changed_recipe_is_not_resumed(make_folder: Make) -> None:
    rundir = make_folder(schedule__epochs=1)
    carry_out(rundir)
    rundir.recipe.write_text(rundir.recipe.read_text().replace("epochs = 1", "epochs = 2"))
    assert engine(rundir) == 1
    assert "recipe.toml was changed" in rundir.json("exit.json")["reason"]


def test_evaluate_again_adds_evaluations_and_leaves_the_status(make_folder: Make) -> None:
    rundir = make_folder(schedule__epochs=1, eval__attacks=[])
    engine(rundir)
    before = rundir.json("exit.json")
    done = run_engine(rundir, "--evaluate", "cw20", "--checkpoint", "last")
    assert done.returncode == 0, done.stderr
    assert rundir.json("exit.json") == before
    assert any(
        e["event"] == "eval" and e["metric"] == "cw20" and e["checkpoint"] == "last" for e in read_events(rundir)
    )
    assert run_engine(rundir, "--evaluate", "pgd21").returncode == 2


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


def test_a_stranger_with_the_same_pid_is_not_this_run(make_folder: Make) -> None:
    rundir = make_folder()
    rundir.write_json("heartbeat.json", {"pid": os.getpid(), "start_time": 1.0, "host": os.uname().nodename, "t": 0})
    assert rundir.status() == "lost"


def test_a_stopped_run_evaluates_its_last_checkpoint_as_what_it_is(make_folder: Make) -> None:
    rundir = make_folder(eval__attacks=[])
    carry_out(rundir, until=4)
    assert run_engine(rundir, "--evaluate", "", "--checkpoint", "last").returncode == 0
    rules = {e["rule"] for e in read_events(rundir) if e["event"] == "eval"}
    assert len(rules) == 1
    assert rules.pop().startswith("stopped ")


def test_the_selection_names_its_threat_model(make_folder: Make) -> None:
    rundir = make_folder(schedule__epochs=1, eval__attacks=[], eval__topology=False)
    carry_out(rundir)
    selection = read_events(rundir)[0]["selection"]
    assert (selection["eps"], selection["step_size"], selection["steps"]) == (0.2, 0.02, 10)
    assert selection["split"] == "validation"
    epochs = [event for event in read_events(rundir) if event["event"] == "epoch"]
    assert all(event["selection_seconds"] > 0 and "validation_pgd10" in event for event in epochs)


@pytest.mark.parametrize(("select", "images"), [("validation", 180), ("test", 359)])
def test_best_is_the_most_robust_epoch_then_the_most_natural_then_the_first(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch, select: str, images: int
) -> None:
    measured = iter([(50.0, 80.0), (49.0, 99.0), (50.0, 81.0), (50.0, 81.0), (50.0, 80.0)])
    looked_at = set()

    def select_accuracies(recipe: Any, network: Any, split: Any, *_: Any) -> dict[str, float]:
        looked_at.add(len(split))
        return dict(zip(("pgd10", "natural"), next(measured), strict=True))

    monkeypatch.setattr(train_module, "select_accuracies", select_accuracies)
    rundir = make_folder(
        schedule__epochs=5, eval__select=select, eval__attacks=[], eval__topology=False, eval__checkpoints=["best"],
        eval__best_by="pgd10", data__train_examples=0, optim__batch_size=512, attack__steps=1,
    )  # fmt: skip
    carry_out(rundir)
    told = [event for event in read_events(rundir) if event["event"] == "checkpoint" and event["checkpoint"] == "best"]
    assert [event["epoch"] for event in told] == [1, 3]
    assert {event["rule"] for event in told} == {f"best pgd10 on {select}"}
    assert looked_at == {images}


def test_the_start_tells_of_as_many_steps_as_an_epoch_takes(make_folder: Make) -> None:
    """Whoever watches takes a step's place in its epoch from that number; a remainder below three is no step."""
    for images, steps in ((66, 1), (67, 2)):
        rundir = make_folder(
            str(images), data__train_examples=images, optim__batch_size=64, schedule__epochs=1, run__log_every=1,
            eval__attacks=[], eval__topology=False, eval__checkpoints=["last"], attack__steps=1,
        )  # fmt: skip
        carry_out(rundir)
        log = read_events(rundir)
        assert sum(event["event"] == "step" for event in log) == steps
        assert log[0]["steps_per_epoch"] == steps
