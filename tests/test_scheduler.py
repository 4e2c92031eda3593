"""The local queue under load, races and kills. Every engine here is a real process."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trainctl import ENGINE, ended, queue, serve, starts, tidy, until

from engine.events import read
from engine.rundir import RunDir
from trainctl.home import Home
from trainctl.launch import folders, processes, scheduler, slots
from trainctl.launch import queue as places
from trainctl.launch.scheduler import Scheduler
from trainctl.recipes.plan import plan

QUEUED = int(os.environ.get("TRAINCTL_QUEUED", "200"))
SHELL = ("sh", str(Path(__file__).with_name("fake_engine.sh")))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def with_gpus(folder: Path, number: int) -> dict[str, str]:
    """The environment of a machine with so many GPUs, as nvidia-smi lists them."""
    program = folder / "nvidia-smi"
    listed = "".join(f"echo 'GPU {gpu}: A (UUID: {gpu})'\n" for gpu in range(number))
    program.write_text(f"#!/bin/sh\n{listed}")
    program.chmod(0o755)
    return {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(number))),
    }


def span(run: RunDir) -> tuple[float, float]:
    """When the run's engine began and ended."""
    times = [event["t"] for _, event in read(run.events.read_bytes())]
    return times[0], times[-1]


def overlap(runs: list[RunDir]) -> int:
    """The largest number of runs that were at work at the same time."""
    return most([span(run) for run in runs])


def most(spans: list[tuple[float, float]]) -> int:
    """The largest number of them that overlap."""
    return max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)


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


def test_who_starts_it_may_ignore_the_end_of_children(home: Home) -> None:
    """Then the kernel reaps them, as long as nobody says otherwise."""
    runs = queue(home, "quick", "crash", share=1.0)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        served = serve(home)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert served.wait(60) == 0
    assert [run.status() for run in runs] == ["done", "failed"] and runs[1].json("exit.json")["code"] == 7


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


@pytest.mark.parametrize("slot", ["gpu", "cores"])
def test_schedulers_race_for_one_queue_and_two_are_killed(home: Home, tmp_path: Path, slot: str) -> None:
    """Each run is started once, in the order of the queue, and never two on a slot.

    4 GPUs and TRAINCTL_QUEUED runs, or 4 shares of the cores and a fifth as many.
    """
    on_gpus = slot == "gpu"
    number = QUEUED if on_gpus else QUEUED // 5
    device = "auto" if on_gpus else "cpu"
    plans = plan(["digits-trades"], seeds=f"0-{number - 1}", overrides=["run.threads=1", f"run.device={device}"])
    made = folders.create(home, plans, share=None if on_gpus else 0.25)
    draw = random.Random(5)
    for run in made:
        if draw.random() < 0.3:
            places.prioritize([run], draw.choice([-1, 1, 2]))
    runs = places.order(made)
    env = with_gpus(tmp_path, 4 if on_gpus else 0)

    for part in (1, 2, 3):  # the scheduler is killed after a third, and after two thirds
        racers = [serve(home, engine=SHELL, **env) for _ in range(2)]
        if part < 3:
            until(lambda part=part: sum(bool(starts(run)) for run in runs) >= part * number // 3, 300)
            for racer in racers:
                racer.kill()
                racer.wait()
        else:
            assert [racer.wait(120) for racer in racers] == [0, 0]

    assert [run.status() for run in runs] == ["done"] * number
    assert [len(starts(run)) for run in runs] == [1] * number
    launched = [t for run in runs if (t := run.json("launch.json").get("t"))]
    assert launched == sorted(launched) and len(launched) >= number - 2  # each kill may come before one is written
    began = [(float(starts(run)[0].split()[0]), starts(run)[0].split()[1]) for run in runs]
    spans = [(begin, float((run.path / "ends").read_text())) for run, (begin, _) in zip(runs, began, strict=True)]
    seen = {gpu: [span for span, (_, on) in zip(spans, began, strict=True) if on == gpu] for _, gpu in began}
    assert sorted(seen) == (["0", "1", "2", "3"] if on_gpus else ["-"])
    assert all(most(each) <= (1 if on_gpus else 4) for each in seen.values())


def test_gpus_are_shared_pinned_and_taken_several_at_a_time(home: Home, tmp_path: Path) -> None:
    shared = queue(home, *["quick"] * 3, run__device="auto", run__gpus=0.5)
    [pair] = queue(home, "quick", run__device="auto", run__gpus=2)
    later = queue(home, "quick", "quick", run__device="auto")
    [pinned] = queue(home, "quick", run__device="cuda:1")
    assert serve(home, **with_gpus(tmp_path, 2)).wait(60) == 0
    visible = {run.id: starts(run)[0].split()[1] for run in home.run_dirs()}
    assert [visible[run.id] for run in shared] == ["0", "0", "1"]
    assert visible[pair.id] == "0,1" and pair.json("launch.json")["device"] == "cuda:0,1"
    # Nobody who came later started on what it was waiting for, and it shared its GPUs with nobody.
    assert all(span(run)[0] >= span(pair)[1] for run in (*later, pinned))
    assert all(span(run)[1] <= span(pair)[0] for run in shared)
    assert visible[pinned.id] == "0,1"  # its recipe counts all of them
    assert pinned.json("launch.json")["device"] == "cuda:1"
    assert overlap([pinned, *(run for run in later if visible[run.id] == "1")]) == 1


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
