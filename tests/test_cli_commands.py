"""The small commands: stop, rm, logs, tag, note, eval; help, errors, --home."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trainctl import COMMAND, ENGINE, cli, environment, humble, queue, starts, tidy, until
from folders import THREATS, make_run

from engine import events
from engine.rundir import RunDir
from trainctl.cli import eval as evaluation
from trainctl.cli.common import printable
from trainctl.cli.logs import _beginning
from trainctl.home import Home
from trainctl.launch import processes


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def made(home: Home, name: str = "quick") -> RunDir:
    """A run of the fake engine that has come to its end."""
    [run] = queue(home, name)
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    child.wait()
    return run


def test_stop(home: Home) -> None:
    ended, queued = made(home), queue(home, "quick")[0]
    [working] = queue(home, "sleep")
    child = processes.start(working, engine=ENGINE)
    until(working.checkpoint("last").exists)
    done = cli(home, "stop", ended.id, queued.id, working.id)
    assert done.returncode == 0 and child is not None and child.wait() == 143
    assert "has ended already: done" in done.stderr and "cancelled before it started" in done.stderr
    assert "sleep-s1 killed: stopped by SIGTERM" in done.stderr
    assert cli(home, "stop", "nobody").returncode == 2
    assert cli(home, "stop", "natural > 1000").returncode == 2


def test_rm_asks_and_spares_the_busy(home: Home) -> None:
    run = made(home)
    refused = cli(home, "rm", run.id, stdin=subprocess.DEVNULL)
    assert refused.returncode == 2 and "--yes" in refused.stderr and run.path.exists()
    [working] = queue(home, "sleep")
    child = processes.start(working, engine=ENGINE)
    until(working.checkpoint("last").exists)
    assert cli(home, "rm", "-y", working.id).returncode == 2 and working.path.exists()
    done = cli(home, "rm", "-y", "--force", working.id, run.id)
    assert done.returncode == 0, done.stderr
    assert list(home.runs.iterdir()) == [] and child is not None and child.wait() == 143
    assert json.loads(cli(home, "ls", "--json").stdout) == []


def test_logs(home: Home) -> None:
    run = made(home)
    done = cli(home, "logs", run.id)
    said, last = done.stdout.splitlines()
    assert done.returncode == 0 and said == f"fake engine on {run.id}, \x1b[31mred\x1b[0m"
    assert re.fullmatch(r"\d\d:\d\d:\d\d done", last)  # how the engine ends every log
    run.log.write_text("".join(f"{n}\n" for n in range(100_000)))
    assert cli(home, "logs", run.id, "-n", "2").stdout == "99998\n99999\n"
    crashed = made(home, "crash")
    processes.record_end(crashed, "failed", code=7, reason="it crashed")
    assert "boom" in cli(home, "logs", crashed.id).stdout
    assert "failed: it crashed" in cli(home, "logs", crashed.id).stderr
    assert cli(home, "logs", "nobody").returncode == 2


def test_logs_follow_to_the_end(home: Home) -> None:
    [run] = queue(home, "quick")
    view = subprocess.Popen([*COMMAND, "logs", "-f", run.id], env=environment(home), stdout=subprocess.PIPE, text=True)
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    child.wait()
    shown, _ = view.communicate(timeout=300)
    assert view.returncode == 0 and f"fake engine on {run.id}" in shown


def test_the_last_lines_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for content, lines, rest in (
        (b"", 3, b""),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\n", 5, b"a\n"),
    ):
        path.write_bytes(content)
        assert content[_beginning(path, lines) :] == rest
    long = b"x" * 200_000 + b"\n" + b"y" * 70_000 + b"\nz\n"
    path.write_bytes(long)
    assert long[_beginning(path, 2) :] == b"y" * 70_000 + b"\nz\n"


def test_tags_and_notes(home: Home) -> None:
    run = made(home)
    assert cli(home, "tag", run.id, "good", "paper").returncode == 0
    assert cli(home, "tag", "tag:good", "good", "--remove").returncode == 0
    assert run.json("labels.json")["tags"] == ["paper"]
    assert json.loads(cli(home, "ls", "--json").stdout)[0]["tags"] == ["paper"]
    assert cli(home, "tag", run.id, "two words").returncode == 2
    assert cli(home, "note", run.id, "try a larger \x1b[2Jlambda").returncode == 0
    assert "try a larger \\x1b[2Jlambda" in cli(home, "note", run.id).stdout
    assert run.json("labels.json")["tags"] == ["paper"]
    assert cli(home, "note", run.id, "").returncode == 0 and "no note" in cli(home, "note", run.id).stdout
    assert cli(home, "note", run.id, "x" * 20_000).returncode == 2


def test_archived_runs_are_out_of_sight_and_not_lost(home: Home) -> None:
    old, new = make_run(home, "aaaa"), make_run(home, "bbbb", topology=True, created=2000.0, tags=["demo"])

    def listed(*arguments: str) -> list[str]:
        return [row["id"] for row in json.loads(cli(home, "ls", "--json", *arguments).stdout)]

    assert "2 run(s) archived" in cli(home, "archive", "tag:demo", "aaaa").stderr
    assert "0 run(s) archived" in cli(home, "archive", "bbbb").stderr
    assert listed() == [] and listed("--archived") == ["aaaa", "bbbb"] == listed("archived = on")
    done = cli(home, "ls")
    assert (done.stdout, done.stderr) == ("", "2 archived run(s) are hidden; --archived shows them\n")
    assert listed("natural>0") == [] and listed("natural>0", "--archived") == ["aaaa", "bbbb"]
    assert json.loads(cli(home, "compare", "--json").stdout)["runs"] == []
    assert cli(home, "archive", "tag:demo").returncode == 2
    assert "1 run(s) brought back" in cli(home, "archive", "tag:demo", "--undo").stderr
    assert listed() == ["bbbb"]
    shown = cli(home, "ls", "-n", "1")
    assert "bbbb" in shown.stdout and shown.stderr == "1 archived run(s) are hidden; --archived shows them\n"
    both = cli(home, "ls", "--archived", "-n", "1")
    assert both.stderr == "… and 1 more; --all shows all 2\n"
    assert "digits-trades+train-s0" in cli(home, "show", new.id).stdout and old.status() == "done"


def test_retry_asks_about_what_is_done_and_begins_anew(home: Home) -> None:
    run, crashed = made(home), made(home, "crash")
    processes.record_end(crashed, "failed", code=7, reason="it crashed")
    refused = cli(home, "retry", run.id, crashed.id, stdin=subprocess.DEVNULL)
    assert refused.returncode == 2 and "1 of 2 run(s) are done" in refused.stderr and "say --yes" in refused.stderr
    assert (run.status(), crashed.status()) == ("done", "failed")
    done = cli(home, "retry", "--yes", run.id)
    assert done.returncode == 0, done.stderr
    assert run.status() == "done" and len(starts(run)) == 2
    for name in ("events.jsonl", "checkpoints/best.safetensors", "exit.json", "stdout.log"):
        assert (run.path / "attempts" / "001" / name).exists()
    assert run.log.read_text().count("fake engine") == 1  # the log is the new attempt's alone
    queued = cli(home, "retry", "-d", "--json", crashed.id)  # nobody is asked about a run that is not done
    assert queued.returncode == 0 and json.loads(queued.stdout)["runs"][0]["status"] == "queued"
    assert "trainctl watch" in queued.stderr
    until(lambda: crashed.status() == "failed" and len(starts(crashed)) == 2)
    [waiting] = queue(home, "sleep")
    child = processes.start(waiting, engine=ENGINE)
    until(waiting.checkpoint("last").exists)
    assert cli(home, "retry", "--yes", waiting.id, run.id).returncode == 2 and len(starts(run)) == 2
    processes.stop([waiting], grace=10)
    assert child is not None and child.wait() == 143


def test_eval(home: Home) -> None:
    run = made(home)
    done = cli(home, "eval", run.id, "--attacks", "pgd20,pgd10", "--checkpoint", "last")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "quick-s1  last  pgd20 50.50  100 images\nquick-s1  last  pgd10 50.50  100 images\n"
    lines = cli(home, "eval", run.id, "--attacks", "pgd20", "--json").stdout.splitlines()
    assert [json.loads(line)["checkpoint"] for line in lines] == ["best"]
    assert run.status() == "done"
    lacking = cli(home, "eval", run.id, "--attacks", "aa")
    assert lacking.returncode == 3 and "error: quick-s1: no AutoAttack here" in lacking.stderr
    assert "hint: pip install it" in lacking.stderr
    none = cli(home, "eval", run.id, "--attacks", " ,")  # a variable of the shell that is not set
    assert none.returncode == 2 and "--attacks names none" in none.stderr
    wrong = cli(home, "eval", run.id, "--attacks", "pgd21")
    assert wrong.returncode == 2 and "pgd21" in wrong.stderr and "pgd20" in wrong.stderr
    [fresh] = queue(home, "quick")
    assert "no checkpoint" in cli(home, "eval", fresh.id).stderr


def test_eval_says_the_threat_model_as_show_does(home: Home) -> None:
    metrics = {"natural": 95.0, "pgd20": 53.0, "aa": 40.0}
    run = make_run(home, "aaaa", metrics=metrics, threats={"aa": {**THREATS["aa"], "n": 100, "warnings": ["zero"]}})
    shown = re.sub(r"\s+", " ", cli(home, "show", run.id).stdout)
    log = [event for _, event in events.read(run.events.read_bytes()) if event["event"] == "eval"]
    lines = [evaluation._line(event) for event in log if event["checkpoint"] == "best"]
    threat = "linf, ε 0.25, step 0.025, 20 steps, uniform start, 360 of 360 test images, engine.attacks.pgd 1"
    assert lines[1] == f"best  pgd20 53.00  {threat}"
    assert lines[2].endswith("100 of 360 test images, pyautoattack 0.2.0 standard, warnings: zero")
    for line in lines:
        assert line.split("  ", 2)[2] in shown


def test_show_says_where_one_measurement_stands_for_both(home: Home) -> None:
    run = make_run(home, "aaaa", metrics={"natural": 95.0})
    lines = run.events.read_bytes()
    [best] = [event for _, event in events.read(lines) if event["event"] == "eval" and event["checkpoint"] == "best"]
    last = {**best, "checkpoint": "last", "rule": "last epoch"}
    for more, times in (({"measured_on": "best"}, 1), ({"measured_on": "best", "epoch": 99}, 0), ({}, 0)):
        run.events.write_bytes(lines + json.dumps(last | more).encode() + b"\n")
        shown = cli(home, "show", run.id).stdout
        assert shown.count("the same weights, measured once") == times and "last (last epoch" in shown


def test_eval_is_interrupted(home: Home) -> None:
    run = made(home)
    view = subprocess.Popen(
        [*COMMAND, "eval", run.id, "--attacks", "cw20"], env=environment(home), stderr=subprocess.PIPE, text=True
    )
    assert view.stderr and "evaluating best with cw20" in view.stderr.readline()
    busy = cli(home, "eval", run.id, "--attacks", "pgd20")
    assert busy.returncode == 2 and "works in run" in busy.stderr
    view.send_signal(signal.SIGINT)
    view.communicate(timeout=300)
    assert view.returncode == 130
    with processes.claim(run):
        assert run.status() == "done"


def test_output_that_cannot_be_written(home: Home) -> None:
    run = made(home)
    with open("/dev/full", "w") as full:
        for command in (["ls"], ["show", run.id]):
            done = subprocess.run([*COMMAND, *command], env=environment(home), stdout=full, stderr=subprocess.PIPE)
            said = done.stderr.decode()
            assert done.returncode == 3 and said.startswith("error: cannot write what was asked for: No space"), said
            assert "trainctl itself" not in said and "hint: the disk is full" in said
    for command in (["ls"], ["logs", run.id], ["--help"], ["show", run.id]):
        for closed in (">&-", "2>&-"):
            line = f"{shlex.join([*COMMAND, *command])} {closed}"
            done = subprocess.run(["sh", "-c", line], env=environment(home), capture_output=True)
            assert (done.returncode, done.stderr) == (0, b""), (line, done.stderr)
    assert not (home.path / "crash.log").exists()


def test_a_terminal_that_lacks_letters(home: Home) -> None:
    """Tables have ± and Δ, and what is named by people any letter."""
    made(home)
    poor = {**environment(home), "PYTHONIOENCODING": "ascii"}
    for command in (["ls"], ["show", "@last"], ["doctor"], ["recipes", "show", "cifar100-trades"]):
        done = subprocess.run([*COMMAND, *command], env=poor, capture_output=True, text=True)
        assert "trainctl itself failed" not in done.stderr and done.stdout.isascii() and done.stdout, done.stderr


def test_a_working_directory_that_was_deleted(home: Home, tmp_path: Path) -> None:
    made(home)
    gone = tmp_path / "gone"
    for arguments, code in ((["ls"], 0), (["run", "digits-trades", "--hold"], 3), (["--home", "here", "ls"], 3)):
        gone.mkdir()
        line = f'rmdir "$PWD"; exec {shlex.join([*COMMAND, *arguments])}'
        done = subprocess.run(["sh", "-c", line], env=environment(home), cwd=gone, capture_output=True, text=True)
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
        assert code == 0 or done.stderr.startswith("error: the folder in which this was typed has been deleted")
    assert len(home.run_dirs()) == 1 and not (home.path / "crash.log").exists()


def test_a_home_that_is_closed_or_away_is_not_empty(home: Home, tmp_path: Path) -> None:
    made(home)

    def refused(place: Path) -> None:
        for command in ("ls", "doctor"):
            done = cli(home, command, "--home", str(place), preexec_fn=humble)
            assert done.returncode == 3 and f"the home {place}" in done.stderr, done.stderr

    for closed in (home.path, tmp_path):
        mode = closed.stat().st_mode
        closed.chmod(0)
        try:
            refused(home.path)
        finally:
            closed.chmod(mode)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "unmounted")
    refused(link)


def test_numbers_and_statuses_that_cannot_be(home: Home) -> None:
    made(home)
    many = cli(home, "ls", "-n", "9" * 20)
    assert many.returncode == 2 and "--number" in many.stderr
    wrong = cli(home, "ls", "status=don")
    assert wrong.returncode == 2 and "no run can be 'don'" in wrong.stderr and "queued, starting" in wrong.stderr
    assert cli(home, "ls", "status!=Done").returncode == 0


def test_a_note_of_two_lines_is_shown_as_it_is(home: Home) -> None:
    run = made(home)
    cli(home, "note", run.id, "first\nsecond \x1b[31m")
    assert re.search(r"note +first *\n +second \\x1b\[31m *\n", cli(home, "show", run.id).stdout)


def test_home_before_and_after_the_command(home: Home, tmp_path: Path) -> None:
    run = made(home)
    other = Home(tmp_path / "other").create()
    for arguments in (["--home", str(home.path), "ls", "--json"], ["ls", "--json", "--home", str(home.path)]):
        assert [row["id"] for row in json.loads(cli(other, *arguments).stdout)] == [run.id]
    assert json.loads(cli(other, "ls", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "Did you mean 'run'"),
        (["--bad"], "No such option"),
        (["stop"], "Missing argument"),
        (["ls", "--bad"], "trainctl ls --help"),
    ],
)
def test_wrong_usage(home: Home, arguments: list[str], said: str) -> None:
    done = cli(home, *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


def test_a_mistake_of_ours_keeps_its_traceback(home: Home) -> None:
    script = (
        "import trainctl.cli.doctor as d, trainctl.cli.app as a\n"
        "def broken(place): raise ZeroDivisionError('oh')\n"
        "d.findings = broken\n"
        "a.run(['doctor'])\n"
    )
    command = [COMMAND[0], "-c", script]
    done = subprocess.run(
        command, env=environment(home), capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False
    )
    assert done.returncode == 1 and "ZeroDivisionError: oh" in done.stderr and "Traceback" not in done.stderr
    assert str(home.path / "crash.log") in done.stderr
    assert "Traceback" in (home.path / "crash.log").read_text()


def test_help_names_every_command(home: Home) -> None:
    shown = cli(home, "--help").stdout
    for name in ("run", "recipes", "ls", "compare", "stop", "resume", "retry", "archive", "eval", "doctor"):
        assert f"\n  {name} " in shown
    for name in ("run", "stop", "resume", "retry", "rm", "archive", "logs", "tag", "note", "eval", "doctor", "watch"):
        done = cli(home, name, "-h")
        assert done.returncode == 0 and f"Usage: trainctl {name}" in done.stdout


def test_completion_knows_commands_and_options(home: Home) -> None:
    env = {**environment(home), "_TRAINCTL_COMPLETE": "complete_bash", "COMP_CWORD": "1", "COMP_WORDS": "trainctl re"}
    done = subprocess.run(COMMAND, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["recipes", "resume", "retry", "reproduce", "reindex"]
    env |= {"COMP_WORDS": "trainctl stop --gr", "COMP_CWORD": "2"}
    assert subprocess.run(COMMAND, env=env, capture_output=True, text=True, check=False).stdout.split() == ["--grace"]


def test_nothing_from_a_file_steers_the_terminal() -> None:
    assert printable("a\x1b[2Jb\x07\n\tü") == "a\\x1b[2Jb\\x07\n\tü"
