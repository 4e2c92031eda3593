"""`trainctl run`, `resume` and `watch` as processes: JSON, Ctrl-C, a closed terminal, a killed scheduler."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trainctl import COMMAND, cli, ended, environment, humble, queue, serve, starts, tidy, until
from folders import PGD, make_run

from trainctl.cli.attend import attend
from trainctl.home import Home
from trainctl.launch import scheduler

SUMMARY = ["id", "name", "recipe", "group", "pair", "seed", "status", "reason", "metrics"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def begin(home: Home, *arguments: str) -> subprocess.Popen[str]:
    """The command line as a child in a session of its own, as a terminal's job is."""
    return subprocess.Popen(
        [*COMMAND, *arguments], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def at_work(home: Home, n: int) -> None:
    """Wait until `n` runs of the home have events."""
    until(lambda: sum(run.events.exists() and run.events.stat().st_size > 300 for run in home.run_dirs()) >= n)


def test_run_to_the_end(home: Home) -> None:
    done = cli(home, "run", "digits-trades", "--pair", "--name", "quick", "--tag", "a")
    assert done.returncode == 0, done.stderr
    runs = home.run_dirs()
    assert sorted(run.json("run.json")["name"] for run in runs) == ["quick+train-s1", "quick-s1"]
    for run in runs:
        assert run.id in done.stdout and run.json("run.json")["tags"] == ["a"]
    assert re.search(r"quick-s1\s+done\s+95\s+53\.25", done.stdout)
    assert (
        "quick-s1: epoch 3/3, loss 1.500 = robust 1.000 + topology 0.500, train 90.0/50.0, val 91.0/51.0" in done.stderr
    )
    assert "quick-s1: best: pgd20 53.25 (n = 360)" in done.stderr and "quick-s1: warning: this is a fake" in done.stderr


def test_run_on_a_terminal_that_lacks_letters(tmp_path: Path) -> None:
    """The log of the scheduler names the home, whose path may have any letter."""
    with tidy(Home(tmp_path / "☃").create()) as home:
        poor = {**environment(home), "PYTHONIOENCODING": "ascii"}
        command = [*COMMAND, "run", "digits-trades", "--name", "quick"]
        done = subprocess.run(command, env=poor, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and "quick-s1: done" in done.stderr, done.stderr
        assert "☃" in (home.path / "scheduler.log").read_text(encoding="utf-8")


def test_json_lines_end_with_a_summary(home: Home) -> None:
    done = cli(home, "run", "digits-trades", "--name", "quick", "--seeds", "0-1", "--json", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ids = {run.id for run in home.run_dirs()}
    assert {line["run"] for line in lines[:-1]} == ids
    assert sum(line["event"] == "end" for line in lines) == 2
    assert lines[-1]["event"] == "summary"
    assert [run["status"] for run in lines[-1]["runs"]] == ["done", "done"]
    assert lines[-1]["runs"][0]["metrics"] == {"natural": 95.0, "pgd20": 53.25}
    assert [run["seed"] for run in lines[-1]["runs"]] == [0, 1]
    assert [list(run) for run in lines[-1]["runs"]] == [SUMMARY, SUMMARY]


@pytest.mark.parametrize(
    ("name", "code", "said"), [("crash", 1, "left no exit.json"), ("lacks", 3, "no data set; put it there")]
)
def test_exit_codes_of_runs_that_fail(home: Home, name: str, code: int, said: str) -> None:
    done = cli(home, "run", "digits-trades", "--name", name)
    assert done.returncode == code
    assert said in done.stderr and "trainctl logs" in done.stderr and "Traceback" not in done.stderr


def test_mistakes_start_nothing(home: Home) -> None:
    mistakes = ["--set", "model.arhc=x", "--set", "optim.lr=fast", "--set", "schedule.epochs=0"]
    done = cli(home, "run", "digits-trades", *mistakes)
    assert done.returncode == 2 and done.stdout == ""
    for word in ("model.arhc", "optim.lr", "schedule.epochs"):
        assert word in done.stderr
    assert home.run_dirs() == []
    assert cli(home, "run", "digits-tradse").returncode == 2
    assert cli(home, "run", "digits-trades", "--pair", "--train").returncode == 2
    assert cli(home, "run", "digits-trades", "--tag", "a b").returncode == 2
    assert cli(home, "run").returncode == 2
    assert home.run_dirs() == []


def test_detached_runs_go_on_alone(home: Home) -> None:
    done = cli(home, "run", "digits-trades", "--name", "quick", "-d")
    [run] = home.run_dirs()
    assert done.returncode == 0 and done.stdout == f"{run.id} quick-s1\n"
    assert f"trainctl watch {run.id}" in done.stderr
    until(ended([run]))
    again = json.loads(cli(home, "run", "digits-trades", "--name", "quick", "-d", "--json").stdout)
    assert again["event"] == "summary" and again["runs"][0]["status"] == "queued"
    [queued] = again["runs"]
    assert set(again) == {"event", "t", "runs"} and list(queued) == SUMMARY
    about = home.run(queued["id"]).json("run.json")
    for key in ("name", "recipe", "group", "pair", "seed"):
        assert queued[key] == about[key]
    assert (queued["reason"], queued["metrics"]) == ("", {})


def test_the_last_table_marks_numbers_under_other_threat_models(
    home: Home, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = {"natural": 95.0, "pgd20": 53.0}
    runs = [make_run(home, name, metrics=metrics, last={"pgd20": 1.0}) for name in ("aaaa", "bbbb")]
    runs.append(make_run(home, "cccc", metrics=metrics, threats={"pgd20": {**PGD, "eps": 0.05}}))
    runs.append(make_run(home, "dddd", status="failed"))
    monkeypatch.setenv("COLUMNS", "100")
    assert attend(home, runs) == 1
    lines = capfd.readouterr().out.splitlines()
    [marked] = [line for line in lines if "ᵃ" in line and "cccc" in line]
    assert re.search(r"done +95 +53ᵃ", marked)
    assert sum("ᵃ" in line for line in lines) == 2 and lines[-1] == "ᵃ eps 0.05 instead of 0.25"
    assert "pgd20: linf, ε 0.25, step 0.025, 20 steps, uniform start, 360 of 360 images" in " ".join(
        " ".join(lines).split()
    )
    assert attend(home, runs[-1:]) == 1
    assert "images" not in capfd.readouterr().out  # no number, nothing to explain


def test_ctrl_c_stops_and_resume_goes_on(home: Home) -> None:
    view = begin(home, "run", "digits-trades", "--name", "sleep", "--seeds", "0-1", "--jobs", "1")
    at_work(home, 1)
    view.send_signal(signal.SIGINT)
    _, said = view.communicate(timeout=300)
    assert view.returncode == 130
    runs = sorted(home.run_dirs(), key=lambda run: run.json("run.json")["seed"])
    assert [run.json("exit.json")["reason"] for run in runs] == ["stopped by SIGTERM", "cancelled before it started"]
    assert f"trainctl resume {runs[0].id} {runs[1].id}" in said and "Traceback" not in said

    # Now they are short, and go on to the end.
    for run in runs:
        run.write_json("run.json", {**run.json("run.json"), "name": "quick-again"})
    done = cli(home, "resume", runs[0].id, runs[1].id)
    assert done.returncode == 0, done.stderr
    assert [run.status() for run in runs] == ["done", "done"] and [len(starts(run)) for run in runs] == [2, 1]
    assert cli(home, "resume", runs[0].id).returncode == 2


def test_ctrl_c_twice_kills(home: Home) -> None:
    view = begin(home, "run", "digits-trades", "--name", "deaf")
    at_work(home, 1)
    view.send_signal(signal.SIGINT)
    [run] = home.run_dirs()
    until(lambda: run.status() == "stopping")
    view.send_signal(signal.SIGINT)
    _, said = view.communicate(timeout=300)
    assert view.returncode == 130 and "Ctrl-C again" in said and "deaf-s1 killed: 1 process" in said
    assert run.status() == "killed" and run.json("exit.json")["signal"] == "SIGKILL"


def test_a_closed_terminal_ends_the_view_and_not_the_runs(home: Home) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(environment(home))
        os.execv(COMMAND[0], [*COMMAND, "run", "digits-trades", "--name", "sleep"])
    at_work(home, 1)
    shown = b""
    deadline = time.monotonic() + 60
    while b"training" not in shown and time.monotonic() < deadline:
        shown += os.read(terminal, 65536)
    assert b"sleep-s1" in shown and b"training" in shown
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) != 0
    [run] = home.run_dirs()
    size = run.events.stat().st_size
    until(lambda: run.events.stat().st_size > size)
    assert run.status() == "running"


def test_the_view_replaces_a_killed_scheduler(home: Home) -> None:
    view = begin(home, "run", "digits-trades", "--name", "quick", "--seeds", "0-3", "--jobs", "1")
    log = home.path / "scheduler.log"
    until(lambda: log.exists() and " serves " in log.read_text())
    match = re.search(r"scheduler (\d+) serves", log.read_text())
    assert match
    os.kill(int(match[1]), signal.SIGKILL)
    _, said = view.communicate(timeout=300)
    assert view.returncode == 0, said
    assert log.read_text().count(" serves ") >= 2
    assert [len(starts(run)) for run in home.run_dirs()] == [1] * 4


def test_watch_follows_to_the_end_and_leaves_on_ctrl_c(home: Home) -> None:
    assert "nothing is queued" in cli(home, "watch").stderr
    queue(home, "quick")
    done = cli(home, "watch")  # it also sees to the queue
    assert done.returncode == 0 and "quick-s1: done" in done.stderr
    cli(home, "run", "digits-trades", "--name", "sleep", "-d")
    view = begin(home, "watch", "@last")
    assert view.stderr and "sleep-s1" in view.stderr.readline()  # it watches; before, Ctrl-C would meet the start
    view.send_signal(signal.SIGINT)
    _, said = view.communicate(timeout=300)
    assert view.returncode == 130, said
    assert [run.status() for run in home.run_dirs() if run.json("run.json")["name"] == "sleep-s1"] == ["running"]


def test_watch_where_nothing_may_be_written(home: Home) -> None:
    [run] = queue(home, "quick")
    (lock := scheduler.lock(home)).touch(0o444)
    home.path.chmod(0o555)
    try:
        view = subprocess.Popen(
            [*COMMAND, "watch"], env=environment(home), stderr=subprocess.PIPE, text=True, preexec_fn=humble
        )
        assert view.stderr
        said = [view.stderr.readline() for _ in range(2)]
        assert any(f"nobody starts what is queued: cannot write {lock}" in line for line in said)
    finally:
        home.path.chmod(0o755)
        lock.chmod(0o644)
    served = serve(home)  # by whom the home belongs to
    _, said = view.communicate(timeout=300)
    assert view.returncode == 0 and "quick-s1: done" in said, said
    assert served.wait(60) == 0 and run.status() == "done"


def test_a_reader_that_leaves_ends_the_view_quietly(home: Home) -> None:
    view = begin(home, "run", "digits-trades", "--name", "sleep", "--json")
    assert view.stdout and view.stderr
    view.stdout.readline()
    view.stdout.close()
    assert view.wait(30) == 1
    assert view.stderr.read() == ""
    view.stderr.close()
    [run] = home.run_dirs()
    assert run.status() == "running"
