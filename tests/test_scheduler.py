"""The local queue under load, races and kills. Every engine here is a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trainctl import ENGINE, ended, environment, queue, starts, tidy, until

from engine.events import read
from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import processes, scheduler, slots
from trainctl.launch.scheduler import Scheduler


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def serve(home: Home, **env: str) -> subprocess.Popen[bytes]:
    """A scheduler of this home as a child of the test."""
    log = open(home.path / "scheduler.log", "ab")  # noqa: SIM115
    command = [sys.executable, "-m", "trainctl.launch.scheduler", str(home.path), *ENGINE]
    with log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, env={**environment(home), **env}, start_new_session=True
        )


def span(run: RunDir) -> tuple[float, float]:
    """When the run's engine began and ended."""
    times = [event["t"] for _, event in read(run.events.read_bytes())]
    return times[0], times[-1]


def overlap(runs: list[RunDir]) -> int:
    """The largest number of runs that were at work at the same time."""
    spans = [span(run) for run in runs]
    return max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)


def test_first_come_first_served_and_never_more_than_fit(home: Home) -> None:
    runs = queue(home, "quick", "quick", "quick", share=1.0)
    assert serve(home).wait(60) == 0
    assert [run.status() for run in runs] == ["done"] * 3
    assert overlap(runs) == 1
    begins = [span(run)[0] for run in runs]
    assert begins == sorted(begins)
    assert all(len(starts(run)) == 1 for run in runs)


def test_shares_run_side_by_side(home: Home) -> None:
    runs = queue(home, "quick", "quick", "quick", "quick", share=0.5)
    assert serve(home).wait(60) == 0
    assert overlap(runs) == 2
    assert all(run.json("launch.json")["device"] == "cpu" for run in runs)


def test_ensure_starts_one_that_leaves_when_all_is_done(home: Home) -> None:
    runs = queue(home, "quick")
    scheduler.ensure(home, ENGINE)
    until(ended(runs))
    until(lambda: not scheduler.alive(home))
    scheduler.ensure(home, ENGINE)  # nothing to do: it looks and leaves
    until(lambda: all(child.poll() == 0 for child in scheduler._started))
    assert not scheduler.alive(home)


def test_a_run_that_comes_later_wakes_it(home: Home) -> None:
    [long] = queue(home, "sleep", share=0.5)
    scheduler.ensure(home, ENGINE)
    until(long.events.exists)
    late = queue(home, "quick", share=0.5)
    scheduler.ensure(home, ENGINE)
    until(ended(late))
    assert long.status() == "running"


def test_how_each_death_is_written_down(home: Home) -> None:
    runs = crash, _, orphan, _ = queue(home, "crash", "suicide", "orphan", "lacks", share=0.5)
    assert serve(home).wait(60) == 0
    assert ended(runs)()
    exits = [run.json("exit.json") for run in runs]
    assert [found["status"] for found in exits] == ["failed", "killed", "killed", "failed"]
    assert exits[0]["code"] == 7 and f"trainctl logs {crash.id}" in exits[0]["reason"]
    assert exits[1]["signal"] == "SIGKILL" and "from outside (out of memory?)" in exits[1]["reason"]
    assert exits[2]["signal"] == "SIGSEGV" and "memory" not in exits[2]["reason"]
    assert exits[3]["code"] == 3 and exits[3]["reason"] == "no data set"
    left = int((orphan.path / "orphan").read_text())
    until(
        lambda: not Path(f"/proc/{left}").exists() or "Z" in Path(f"/proc/{left}/stat").read_text().split(") ")[1][:1]
    )


def test_a_killed_scheduler_is_replaced_and_nothing_starts_twice(home: Home) -> None:
    runs = queue(home, "sleep", "sleep", "quick", "quick", share=0.5)
    first = serve(home)
    until(lambda: all(run.status() == "running" for run in runs[:2]))
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert [run.status() for run in runs] == ["running", "running", "queued", "queued"]
    second = serve(home)
    until(lambda: "is at work already" in (home.path / "scheduler.log").read_text())
    assert runs[2].status() == "queued"  # those adopted take their share
    processes.stop([runs[0]], grace=10)
    until(ended(runs[2:]))
    assert [run.status() for run in runs] == ["killed", "running", "done", "done"]
    processes.stop([runs[1]], grace=10)
    assert second.wait(30) == 0
    assert [len(starts(run)) for run in runs] == [1, 1, 1, 1]


def test_an_adopted_engine_that_dies_is_lost_and_frees_its_share(home: Home) -> None:
    [run, after] = queue(home, "sleep", "quick", share=1.0)
    first = serve(home)
    until(run.events.exists)
    first.kill()
    first.wait()
    second = serve(home)
    until(lambda: "is at work already" in (home.path / "scheduler.log").read_text())
    os.kill(run.json("heartbeat.json")["pid"], signal.SIGKILL)
    assert second.wait(30) == 0
    assert run.status() == "lost" and after.status() == "done"


def test_a_run_in_somebodys_hands_is_not_started(home: Home) -> None:
    """As when a scheduler was killed between starting an engine and writing its pid."""
    [run] = queue(home, "quick")
    with processes.claim(run):
        queued = Scheduler(home, ENGINE, [])
        assert queued.step() and queued.step()
        assert list(queued.workers) == [run.id] and starts(run) == []
    until(lambda: not queued.step())
    assert run.status() == "done" and len(starts(run)) == 1


def test_schedulers_race_for_one_queue(home: Home) -> None:
    runs = queue(home, *["quick"] * 8, share=0.25)
    racers = [serve(home) for _ in range(4)]
    for racer in racers:
        assert racer.wait(90) == 0
    until(ended(runs))
    assert [run.status() for run in runs] == ["done"] * 8
    assert [len(starts(run)) for run in runs] == [1] * 8
    assert overlap(runs) <= 4


def test_one_gpu_a_run(home: Home, tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\n")
    program.chmod(0o755)
    runs = queue(home, *["quick"] * 4, run__device="auto")
    [pinned] = queue(home, "quick", run__device="cuda:1")
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    env.pop("CUDA_VISIBLE_DEVICES", None)
    assert serve(home, PATH=env["PATH"]).wait(60) == 0
    visible = [starts(run)[0].split()[1] for run in runs]
    assert sorted(visible) == ["0", "0", "1", "1"]
    assert [run.json("launch.json")["device"] for run in runs] == [f"cuda:{gpu}" for gpu in visible]
    for gpu in ("0", "1"):
        assert overlap([run for run, seen in zip(runs, visible, strict=True) if seen == gpu]) == 1
    assert starts(pinned)[0].split()[1] == "-"  # its recipe counts all of them
    assert overlap([pinned, *(run for run, seen in zip(runs, visible, strict=True) if seen == "1")]) == 1


def test_one_bad_folder_does_not_stop_the_others(home: Home) -> None:
    bad, good = queue(home, "quick", "quick")
    bad.log.mkdir()  # its output cannot be opened
    assert serve(home).wait(30) == 0
    assert good.status() == "done"
    assert bad.status() == "failed" and "cannot be started" in bad.json("exit.json")["reason"]


def test_a_run_queued_again_meanwhile_keeps_its_place(home: Home) -> None:
    """The record of an old child's death must not end the run that was queued again."""
    [run] = queue(home, "suicide")
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    child.wait()
    processes.record_end(run, "killed", reason="by hand")
    from trainctl.launch import folders

    folders.requeue(run)
    scheduler._record(run, child)
    assert run.status() == "queued"


def test_no_share_is_lost_to_rounding(home: Home) -> None:
    runs = queue(home, *["quick"] * 3, share=1 / 3)
    queued = Scheduler(home, ENGINE, [])
    queued.step()
    assert len(queued.workers) == 3
    until(lambda: not queued.step())
    assert [run.status() for run in runs] == ["done"] * 3
    assert slots.need(runs[0], []).share == 1 / 3
