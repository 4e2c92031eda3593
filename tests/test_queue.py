"""The order of the queue, held and paused runs, and what is taken up again by itself; with real schedulers."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_trainctl import ENGINE, ROOT, cli, ended, humble, queue, serve, starts, tidy, until
from folders import make_run

from engine.rundir import RunDir
from trainctl.cli.app import _run
from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.launch import again, folders, processes, scheduler, slots
from trainctl.launch import queue as places
from trainctl.launch.follow import Follower
from trainctl.launch.queue import Place
from trainctl.launch.scheduler import Scheduler


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr(processes, "ENGINE", ENGINE)
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def waiting(home: Home, number: int, **more: Any) -> list[RunDir]:
    return [make_run(home, f"r{index}", status="queued", created=1000.0, **more) for index in range(number)]


# --- the order ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"priority": 2, "position": 3.5, "held": true}', Place(2, 3.5, True)),
        ('{"position": 7}', Place(0, 7.0)),
        ("", Place()), ("{", Place()), ("[1]", Place()), ("null", Place()), ("\xff\x00", Place()),
        ('{"priority": "high", "position": [], "held": 1}', Place()),
        ('{"priority": true, "position": NaN, "held": "true"}', Place()),
        ('{"priority": 1e3, "position": Infinity}', Place()),
        ('{"priority": ' + "9" * 400 + ', "position": -1e300, "held": true}', Place(held=True)),
        ('{"priority": ' + "9" * 9000 + "}", Place()), ("[" * 100_000, Place()),
    ],
)  # fmt: skip
def test_a_damaged_place_is_the_usual_place(text: str, expected: Place, tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    (tmp_path / "queue.json").write_text(text, encoding="latin-1")
    assert places.place(run) == expected
    assert places.order([run]) == [run]


def test_the_order_is_by_priority_then_position_then_age(home: Home) -> None:
    for name, created, place in [
        ("old", 1.0, {}), ("new", 9.0, {}), ("moved", 9.5, {"position": 0.5}), ("urgent", 8.0, {"priority": 1}),
        ("low", 0.1, {"priority": -1}), ("same", 1.0, {}),
    ]:  # fmt: skip
        make_run(home, name, status="queued", created=created).write_json("queue.json", place)
    make_run(home, "done")
    make_run(home, "odd", status="queued").write_json("run.json", {"created": "yesterday"})
    assert [run.id for run in places.queued(home)] == ["urgent", "odd", "moved", "old", "same", "new", "low"]


def test_moves_are_those_of_a_list(home: Home) -> None:
    """100 moves among runs of one age and several priorities, against a list of names."""
    runs = waiting(home, 7)
    draw = random.Random(3)
    for run in runs[:3]:
        places.prioritize([run], draw.randrange(3))
    names = [run.id for run in places.queued(home)]
    for _ in range(100):
        name, to = draw.choice(names), draw.choice(places.DIRECTIONS)
        at = names.index(name)
        names.remove(name)
        names.insert({"first": 0, "last": 6, "up": max(0, at - 1), "down": at + 1}[to], name)
        places.move(home, home.run(name), to)
        assert [run.id for run in places.queued(home)] == names
    late = make_run(home, "late", status="queued", created=time.time() + 1)
    places.prioritize([late], places.place(home.run(names[-1])).priority)
    assert places.queued(home)[-1].id == "late"  # who comes later is behind all that were moved
    with pytest.raises(UsageError, match="sideways"):
        places.move(home, runs[0], "sideways")


def test_only_queued_runs_have_a_place(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    [run] = waiting(home, 1)
    done = make_run(home, "done")
    deeds: list[Callable[[], None]] = [
        lambda: places.hold([run, done], True), lambda: places.prioritize([run, done], 1),
        lambda: places.move(home, done, "first"), lambda: places.move(home, home.run("gone"), "up"),
    ]  # fmt: skip
    for deed in deeds:
        with pytest.raises(UsageError, match="not queued"):
            deed()
    assert places.place(run) == Place()  # all are looked at before one is changed

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(places, "write", full)
    for deed in (lambda: places.hold([run], True), lambda: places.prioritize([run], 1), lambda: places.pause(home)):
        with pytest.raises(MachineError, match="No space left") as told:
            deed()
        assert "trainctl rm" in told.value.hint


def test_a_folder_into_which_nobody_may_look_stops_no_other(home: Home) -> None:
    closed, waits = queue(home, "quick", "quick")
    closed.path.chmod(0)
    try:
        told = cli(home, "queue", "--json", preexec_fn=humble)
        assert [row["id"] for row in json.loads(told.stdout)["runs"]] == [waits.id]
        done = cli(home, "watch", preexec_fn=humble)  # with a scheduler that may not look either
        assert done.returncode == 0 and "quick-s1: done" in done.stderr
    finally:
        closed.path.chmod(0o755)
    assert [closed.status(), waits.status()] == ["queued", "done"]


def test_a_writer_killed_at_any_moment_leaves_a_whole_place(home: Home) -> None:
    """SIGKILL at TRAINCTL_KILLS moments while the places of two runs are written again and again."""
    runs = waiting(home, 2)
    script = (
        "import sys; from pathlib import Path; from trainctl.home import Home; from trainctl.launch import queue\n"
        "home = Home(Path(sys.argv[1])); runs = queue.queued(home); print(flush=True)\n"
        "while True:\n"
        "    for n in (5, 6):\n"
        "        queue.prioritize(runs, n); queue.hold(runs, n == 5); queue.move(home, runs[0], 'last')\n"
    )
    draw = random.Random(1)
    for _ in range(int(os.environ.get("TRAINCTL_KILLS", "10"))):
        writer = subprocess.Popen([sys.executable, "-c", script, str(home.path)], cwd=ROOT, stdout=subprocess.PIPE)
        assert writer.stdout and writer.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.05))
        writer.kill()
        writer.wait()
        for run in runs:
            text = (run.path / "queue.json").read_text() if (run.path / "queue.json").exists() else "{}"
            assert json.loads(text).get("priority", 5) in (0, 5, 6)
        assert {run.id for run in places.queued(home)} == {"r0", "r1"}
    places.move(home, runs[1], "first")
    assert [run.id for run in places.queued(home)] == ["r1", "r0"]


# --- a real scheduler ---------------------------------------------------------------------------------------


def begun(runs: list[RunDir]) -> list[str]:
    """Names of those that were started, in that order."""
    order = sorted((run for run in runs if starts(run)), key=lambda run: float(starts(run)[0].split()[0]))
    return [str(run.json("run.json")["name"]).split("-")[1] for run in order]


def test_it_starts_them_in_their_order_and_passes_the_held(home: Home) -> None:
    runs = queue(home, "quick-a", "quick-b", "quick-c", "quick-d", share=1.0)
    places.prioritize([runs[2]], 1)
    places.move(home, runs[3], "up")
    places.hold([runs[0]], True)
    assert serve(home).wait(60) == 0  # it leaves: what is left is held
    assert begun(runs) == ["c", "d", "b"] and runs[0].status() == "queued"
    places.hold([runs[0]], False)
    scheduler.ensure(home)
    until(ended(runs))
    assert begun(runs)[-1] == "a"


def test_a_paused_queue_starts_nothing_and_runs_at_work_go_on(home: Home) -> None:
    first, second = queue(home, "sleep-a", "quick-b", share=0.5)
    places.hold([second], True)
    served = serve(home)
    until(first.events.exists)
    places.pause(home)
    places.hold([second], False)
    scheduler.ensure(home)
    with open(first.events, "rb") as file:
        file.seek(0, 2)
        until(file.read)  # it works on
    assert second.status() == "queued" and served.poll() is None
    processes.stop([first], grace=20)
    assert served.wait(30) == 0  # it leaves, rather than wait for somebody to come back
    scheduler._started.clear()
    scheduler.ensure(home)
    assert scheduler._started == [] and not scheduler.alive(home)
    assert second.status() == "queued" and places.paused(home)
    places.unpause(home)
    until(ended([second]))
    assert second.status() == "done" and not places.paused(home)


def test_a_move_is_seen_by_the_scheduler_at_work(home: Home) -> None:
    [long] = queue(home, "sleep-a", share=1.0)
    others = queue(home, "quick-b", "quick-c", "quick-d", share=1.0)
    served = serve(home)
    until(long.events.exists)
    places.move(home, others[2], "first")
    places.hold([others[0]], True)
    scheduler.ensure(home)
    processes.stop([long], grace=20)
    assert served.wait(60) == 0
    assert begun([long, *others]) == ["a", "d", "c"]


# --- automatic retries --------------------------------------------------------------------------------------


def dying(home: Home, name: str, run_id: str = "", **settings: object) -> RunDir:
    """A queued run whose engine ends as its name says, each time."""
    [run] = queue(home, name, share=1.0, **settings)
    return run


def over(run: RunDir, status: str, **more: Any) -> None:
    """As if an engine had ended so."""
    run.events.write_text("{}\n")
    run.write_json("launch.json", {"pid": 2**22 + 1, "start_time": 1.0, "host": os.uname().nodename})
    if status != "lost":
        run.write_json("exit.json", {"status": status, "code": 1, "reason": "so it was", **more})


def automatic(run: RunDir) -> list[str]:
    """Statuses of the ends that were followed by an automatic retry, in their order."""
    files = sorted([*run.path.glob("attempts/*-exit.json"), *run.path.glob("attempts/*/exit.json")])
    found = [json.loads(path.read_text()) for path in files]
    return [end["status"] for end in found if end.get("automatic")]


def test_lost_and_preempted_runs_go_on_as_often_as_they_may(home: Home) -> None:
    run, never = queue(home, "quick-a", "quick-b", run__retries=2)
    over(run, "lost")
    over(never, "preempted")
    folders.requeue(never)  # by hand, which does not count
    assert serve(home).wait(60) == 0
    assert [run.status(), never.status()] == ["done", "done"]
    assert automatic(run) == ["lost"] and automatic(never) == []
    assert len(starts(run)) == 1 and "automatic retry 1" in (home.path / "scheduler.log").read_text()
    waits = Scheduler(home, ENGINE, [])
    for status, taken in (("preempted", 2), ("preempted", 2)):
        (run.path / "exit.json").unlink(missing_ok=True)
        over(run, status)
        queued = waits.scan()
        assert len(automatic(run)) == taken
    assert queued == [] and run.status() == "preempted"  # two were allowed
    assert run.json("exit.json").get("automatic") is None


@pytest.mark.parametrize("status", ["failed", "diverged", "killed", "timeout", "done", "oom"])
def test_no_other_end_is_followed_by_a_retry(home: Home, status: str) -> None:
    run = make_run(home, "r", status=status, recipe_table={"run": {"retries": 5}})
    before = run.path.stat().st_mtime_ns
    assert not again.due(run) and again.take_up(run) == "" and Scheduler(home, ENGINE, []).scan() == []
    assert run.status() == status and run.json("exit.json")["status"] == status
    assert run.path.stat().st_mtime_ns == before or (run.path / "stdout.log").exists()


def test_out_of_memory_begins_anew_with_half_the_micro_batch(home: Home) -> None:
    import tomli

    [run] = queue(home, "quick-a", run__retries=3, run__shrink_on_oom="true", optim__batch_size=12)
    sizes = []
    for number in (1, 2):
        over(run, "oom")
        assert f"automatic retry {number}" in again.take_up(run) and run.status() == "queued"
        sizes.append(tomli.loads(run.recipe.read_text())["run"]["micro_batch"])
        kept = tomli.loads((run.path / f"attempts/{number:03d}/recipe.toml").read_text())
        assert kept["run"]["micro_batch"] == [0, 6][number - 1]
        assert not run.events.exists() and (run.path / f"attempts/{number:03d}/events.jsonl").exists()
    assert sizes == [6, 3] and automatic(run) == ["oom", "oom"]
    over(run, "preempted")
    assert "automatic retry 3" in again.take_up(run)  # all kinds are counted together
    over(run, "oom")
    assert again.take_up(run) == "" and run.status() == "oom"


def test_a_micro_batch_that_is_too_small_is_given_up(home: Home) -> None:
    [run] = queue(home, "quick", run__retries=9, run__shrink_on_oom="true", run__micro_batch=5)
    over(run, "oom")
    assert "it needs 3" in again.take_up(run)
    ending = run.json("exit.json")
    assert ending["status"] == "oom" and ending["reason"].startswith("so it was; not tried again: half of the")
    assert not again.due(run) and again.take_up(run) == ""


def test_who_wants_a_run_to_stop_is_obeyed(home: Home) -> None:
    [run] = queue(home, "quick", run__retries=9)
    over(run, "preempted")
    follower = Follower(run)
    follower.poll()
    assert not follower.ended  # it is about to be queued again
    again.give_up(run)
    assert follower.ended
    assert Scheduler(home, ENGINE, []).scan() == [] and run.status() == "preempted"


def test_stop_also_ends_what_the_queue_would_retry(home: Home) -> None:
    lost, cut, never = queue(home, "quick-a", "quick-b", "quick-c", run__retries=9)
    over(lost, "lost")
    over(cut, "killed", retrying=1, before=json.dumps({"status": "oom", "automatic": True}))  # begun, and cut short
    over(never, "failed")
    assert again.due(lost) and again.due(cut)
    done = cli(home, "stop", lost.id, cut.id, never.id)
    assert done.returncode == 0, done.stderr
    assert "quick-a-s1 has ended already: lost; the queue was to retry it, and will not now" in done.stderr
    assert "quick-b-s1 killed: cancelled" in done.stderr and "has ended already: failed\n" in done.stderr
    assert f"trainctl resume {lost.id} {cut.id}" in done.stderr or f"{cut.id} {lost.id}" in done.stderr
    assert Scheduler(home, ENGINE, []).scan() == []
    assert [lost.status(), cut.status()] == ["lost", "killed"]
    lost.write_json("exit.json", {"status": "lost"})
    with processes.claim(lost):  # somebody evaluates it
        assert cli(home, "stop", lost.id).returncode == 2


def test_what_waits_behind_a_stopped_run_is_served(home: Home) -> None:
    """Though the scheduler was killed."""
    at_work, waits = queue(home, "sleep", "quick", share=1.0)
    served = serve(home)
    until(at_work.events.exists)
    served.kill()
    served.wait()
    assert cli(home, "stop", at_work.id).returncode == 0
    until(ended([waits]))
    assert [at_work.status(), waits.status()] == ["killed", "done"]


def test_a_run_in_somebodys_hands_is_not_said_to_be_on_another_host(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    [run] = queue(home, "quick")
    clock = SimpleNamespace(time=time.time, monotonic=itertools.count().__next__, sleep=lambda seconds: None)
    with processes.claim(run), monkeypatch.context() as patch, pytest.raises(processes.Busy) as told:
        patch.setattr(processes, "time", clock)
        processes.request_stop(run)
    assert "being changed by another process" in str(told.value) and "try again" in told.value.hint


def test_a_run_deleted_while_it_is_stopped_has_gone(home: Home) -> None:
    [run] = queue(home, "sleep")
    child = processes.start(run, engine=ENGINE)
    until(run.events.exists)
    said: list[str] = []

    def say(run: RunDir, stage: str) -> None:
        said.append(stage)
        if len(said) == 1:
            run.path.rename(home.path / "away")

    processes.stop([run], 20, say=say)
    assert said[0].startswith("asked to stop") and said[1:] == ["has gone: somebody deleted it"]
    assert child is not None and child.wait(20) is not None


@pytest.mark.parametrize("status", ["lost", "preempted", "oom"])
def test_a_scheduler_killed_in_a_retry_neither_loses_nor_doubles_it(
    home: Home, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at every step that changes the disk, which is as good as a kill there; the next scheduler completes it."""
    import tomli

    class Cut(BaseException):
        """Not caught by anything."""

    steps = 0

    def cut_at(step: int) -> None:
        nonlocal steps
        steps = step

    def counted(real: Any) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal steps
            steps -= 1
            if steps == 0:
                raise Cut
            return real(*args, **more)

        return call

    for name in ("rename", "replace", "unlink", "mkdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    monkeypatch.setattr(os, "truncate", counted(os.truncate))
    for step in range(1, 40):
        cut_at(0)
        [run] = queue(home, "quick", run__retries=1, run__shrink_on_oom="true", optim__batch_size=10)
        run.log.write_text("said\n")
        run.checkpoints.mkdir()
        over(run, status)
        cut_at(step)
        whole = True
        try:
            again.take_up(run)
        except Cut:
            whole = False
        cut_at(0)
        assert [each.id for each in Scheduler(home, ENGINE, []).scan()] == [run.id]
        assert run.status() == "queued" and automatic(run) == [status] and again.taken(run) == 1
        size = tomli.loads(run.recipe.read_text())["run"]["micro_batch"]
        assert size == (5 if status == "oom" else 0)
        over(run, status)
        assert not again.due(run)
        folders.remove(home, run)
        if whole:
            break
    assert whole and step > 4


def test_a_scheduler_killed_between_a_loss_and_its_retry_is_replaced(home: Home) -> None:
    [run] = queue(home, "sleep", run__retries=1, share=1.0)
    first = serve(home)
    until(run.events.exists)
    first.kill()
    first.wait()
    os.kill(run.json("heartbeat.json")["pid"], signal.SIGKILL)
    until(lambda: run.status() == "lost")
    racers = [serve(home), serve(home)]
    until(lambda: len(starts(run)) == 2 and run.status() == "running")
    assert automatic(run) == ["lost"]
    processes.stop([run], grace=20)
    assert [racer.wait(60) for racer in racers] == [0, 0]
    assert run.status() == "killed" and len(starts(run)) == 2


def test_the_kernel_killing_for_lack_of_memory_is_told_apart(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmstat = tmp_path / "vmstat"
    monkeypatch.setattr(scheduler, "VMSTAT", vmstat)
    for before, after, expected in (("7", "8", "oom"), ("7", "7", "killed"), ("", "8", "killed"), ("7", "", "killed")):
        [run] = queue(home, "suicide", run__retries=1, run__shrink_on_oom="true", optim__batch_size=1)
        served = Scheduler(home, ENGINE, [])
        vmstat.write_text(f"nr_free_pages 12\noom_kill {before}\n")
        served.step()
        vmstat.write_text(f"nr_free_pages 12\noom_kill {after}\n")
        until(lambda served=served: not served.step())
        ending = run.json("exit.json")
        assert (ending["status"], ending["signal"], ending["code"]) == (expected, "SIGKILL", 137)
        assert ("lack of memory" in ending["reason"]) == (expected == "oom")
        folders.remove(home, run)


# --- the command line ---------------------------------------------------------------------------------------


def test_the_queue_on_the_command_line(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRAINCTL_HOME", str(home.path))
    monkeypatch.setattr(slots, "gpus", list)

    def sh(*arguments: str) -> tuple[int, str, str]:
        code = _run(["queue", *arguments])
        return code, *capsys.readouterr()

    runs = queue(home, "sleep-a", "quick-b", "quick-c", "quick-[red]d", share=1.0)
    a, b, c, d = (run.id for run in runs)
    places.pause(home)
    assert "at place 1 of 4" in sh("move", d, "--first")[2]
    assert "at place 2, 3 of 4" in sh("move", b, c, "--up")[2]
    assert sh("priority", "-1", b)[0] == 0
    assert sh("priority", "1001", b)[0] == sh("priority", "-1001", b)[0] == 2
    assert sh("pause", a)[0] == 0
    told = json.loads(sh("--json")[1])
    assert told["paused"] and [row["id"] for row in told["runs"]] == [d, c, a, b]
    assert [row["number"] for row in told["runs"]] == [1, 2, 3, 4]
    assert [row["priority"] for row in told["runs"]] == [0, 0, 0, -1]
    assert [row["held"] for row in told["runs"]] == [False, False, True, False]
    assert [row["waits_for"].split(",")[0] for row in told["runs"]] == [
        "the queue is paused", "the queue is paused", "held", "the queue is paused",
    ]  # fmt: skip
    _, table, notes = sh()
    assert "[red]d" in table and "held" in table and "paused; go on with" in notes
    assert sh("continue", a)[0] == 0
    assert "the queue goes on" in sh("continue")[2]
    until(lambda: starts(runs[0]))
    assert begun(runs) == ["[red]d", "c", "a"]
    until(lambda: runs[0].status() == "running")
    assert "needs" in sh()[1]
    code, _, wrong = sh("pause", a)
    assert code == 2 and "not queued" in wrong
    assert sh("move", b)[0] == sh("--json", "pause")[0] == 2
    processes.stop([runs[0]], grace=20)
    until(ended(runs))
    assert "nothing is queued" in sh()[2]


def test_runs_are_queued_with_a_priority_and_held(home: Home) -> None:
    done = cli(home, "run", "digits-trades", "--set", "run.device=cpu", "--priority", "-2", "--hold", "--name", "quick")
    assert done.returncode == 0 and "trainctl queue continue" in done.stderr
    run = home.run(done.stdout.split()[0])
    assert places.place(run) == Place(-2, None, True)
    until(lambda: not scheduler.alive(home))
    assert run.status() == "queued" and starts(run) == []
    processes.request_stop(run)
    folders.requeue(run)
    assert places.place(run) == Place(-2)  # who queues it again wants it to start
