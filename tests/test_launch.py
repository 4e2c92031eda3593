"""Run folders, engine processes, slots, and following."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_trainctl import ENGINE, ROOT, queue, starts, tidy, until

from engine.events import encode
from engine.rundir import STOP_SIGNALS, RunDir, process_start_time
from trainctl.errors import MachineError, UsageError
from trainctl.home import Home
from trainctl.launch import folders, processes, scheduler, slots
from trainctl.launch.follow import Follower, Progress, Tail
from trainctl.recipes.plan import plan


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with tidy(Home(tmp_path / "home").create()) as place:
        yield place


def start(run: RunDir, **more: object) -> subprocess.Popen[bytes]:
    child = processes.start(run, engine=ENGINE, **more)
    assert child is not None
    return child


# --- folders ------------------------------------------------------------------------------------------------


def test_create_writes_a_whole_folder(home: Home) -> None:
    plans = plan(["digits-trades"], seeds="0-1", pair=True)
    runs = folders.create(home, plans, tags=["a"], share=0.5, command=["trainctl", "run", "a b"])
    assert [run.id for run in home.run_dirs()] == sorted(run.id for run in runs)
    assert len({run.id for run in runs}) == 4
    about = runs[0].json("run.json")
    assert about["name"] == plans[0].name and about["group"] == plans[0].group and about["pair"] == plans[1].pair
    assert about["command"] == "trainctl run 'a b'" and about["tags"] == ["a"] and about["share"] == 0.5
    assert all(len(run.id) == 8 and run.status() == "queued" for run in runs)
    created = [run.json("run.json")["created"] for run in runs]
    assert created == sorted(created)
    [again] = plan([str(runs[0].recipe)])
    assert again.recipe.model_dump() == plans[0].recipe.model_dump()


def test_create_leaves_nothing_half_made(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = folders.replace, []

    def full_disk(path: Path, content: str) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(folders, "replace", full_disk)
    with pytest.raises(MachineError, match="No space left"):
        folders.create(home, plan(["digits-trades"], seeds="0-2"))
    assert list(home.runs.iterdir()) == []


def test_requeue_keeps_the_history(home: Home) -> None:
    [run] = queue(home, "sleep")
    child = start(run)
    until(run.checkpoint("last").exists)
    with pytest.raises(UsageError, match="works in run"):
        folders.requeue(run)
    processes.stop([run], grace=10)
    child.wait()
    assert run.status() == "killed" and run.json("exit.json")["signal"] == "SIGTERM"
    folders.requeue(run)
    assert run.status() == "queued" and run.checkpoint("last").exists()
    assert json.loads((run.path / "attempts" / "001-exit.json").read_text())["status"] == "killed"
    with pytest.raises(UsageError, match="is queued"):
        folders.requeue(run)


def test_requeue_refuses_done(home: Home) -> None:
    [run] = queue(home, "quick")
    assert start(run).wait() == 0
    with pytest.raises(UsageError, match="is done"):
        folders.requeue(run)


def test_remove_cuts_links_and_spares_the_busy(home: Home, tmp_path: Path) -> None:
    elsewhere = tmp_path / "precious"
    elsewhere.mkdir()
    (elsewhere / "run.json").write_text("{}")
    (home.runs / "link").symlink_to(elsewhere)
    folders.remove(home, home.run("link"))
    assert (elsewhere / "run.json").exists() and not (home.runs / "link").exists()
    with pytest.raises(UsageError, match="no run folder"):
        folders.remove(home, RunDir(elsewhere))
    [gone, busy] = queue(home, "quick", "quick")
    (gone.path / "out").symlink_to(elsewhere)
    folders.remove(home, gone)
    folders.remove(home, gone)
    assert [run.id for run in home.run_dirs()] == [busy.id] and (elsewhere / "run.json").exists()
    with processes.claim(busy), pytest.raises(processes.Busy):
        folders.remove(home, busy)
    assert busy.path.exists()


@pytest.mark.parametrize("where", ["", "stdout.log", "attempts", "events.jsonl", "checkpoints"])
def test_nothing_is_led_out_of_the_home_by_a_link(home: Home, tmp_path: Path, where: str) -> None:
    """A stranger's folder, or something in it, is a link to what is precious."""
    elsewhere = tmp_path / "precious"
    [run] = queue(home, "quick")
    processes.record_end(run, "failed", reason="so that it can be retried")
    if where:
        elsewhere.mkdir()
        (elsewhere / "log").write_text("precious")
        (run.path / where).unlink(missing_ok=True)
        (run.path / where).symlink_to(elsewhere / "log" if "." in where else elsewhere)
    else:
        run.path.rename(elsewhere)
        run.path.symlink_to(elsewhere)

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in elsewhere.rglob("*") if path.is_file()}

    before = contents()
    for deed in (folders.retry, folders.requeue):
        with pytest.raises(UsageError, match="is a link"):
            deed(run)
    (elsewhere / "exit.json" if not where else run.path / "exit.json").unlink()
    before.pop(str(elsewhere / "exit.json"), None)
    assert run.status() == "queued"
    with pytest.raises(UsageError, match="is a link"):
        processes.start(run, engine=ENGINE)
    if where in ("", "stdout.log"):
        with pytest.raises(UsageError, match="is a link"):
            processes.stop([run])
    if not where:
        processes.record_end(run, "failed", reason="the scheduler could not start it")
    folders.remove(home, run)
    assert contents() == before and not os.path.lexists(run.path)


def test_a_strangers_exit_json_leads_a_retry_nowhere(home: Home, tmp_path: Path) -> None:
    """It may say that a retry was cut short, and where what it moves shall go."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "rc").write_text("precious")
    for number, mark in enumerate(("../../../..", 10**30, -1, None, ["x"], 7, 8)):
        [run] = queue(home, f"quick-{number}")
        run.write_json("exit.json", {"status": "killed", "retrying": mark, "before": "{}", "recipe": ""})
        run.log.write_text("mine")
        (run.path / "attempts").mkdir()
        (run.path / "attempts" / "007").symlink_to(precious)
        (run.path / "attempts" / "008").mkdir()
        (run.path / "attempts" / "008" / ".stdout.log.tmp").symlink_to(precious / "rc")
        if mark == 7:
            with pytest.raises(UsageError, match="is a link"):
                folders.retry(run)
            run.write_json("exit.json", {"status": "killed"})
        folders.retry(run)
        kept = run.path / "attempts" / ("008" if mark == 8 else "009") / "stdout.log"
        assert kept.read_text() == "mine" and not kept.is_symlink() and run.status() == "queued"
    assert [path.name for path in precious.iterdir()] == ["rc"] and (precious / "rc").read_text() == "precious"


def test_a_log_that_would_block_is_refused(home: Home) -> None:
    [run] = queue(home, "quick")
    os.mkfifo(run.log)
    with pytest.raises(UsageError, match="no ordinary file"):
        processes.start(run, engine=ENGINE)
    folders.remove(home, run)
    assert not run.path.exists()


@pytest.mark.parametrize("cwd", ["relative", "/nowhere", "/" + "x" * 5000, "/\0", "/\ud800", "/etc/passwd", 5, None])
def test_a_folder_that_nobody_can_work_in_is_not_worked_in(home: Home, cwd: object) -> None:
    [run] = queue(home, "quick")
    run.write_json("run.json", {**run.json("run.json"), "cwd": cwd})
    assert processes._cwd(run) == run.path


FULL = """
import json, os, resource, subprocess, sys
from pathlib import Path
sys.path[:0] = sys.argv[2:4]
from fake_trainctl import Home, folders, processes, queue
from trainctl.errors import MachineError
from trainctl.launch import frozen
from trainctl.recipes.plan import plan
from trainctl.registry import labels
disk = Path(sys.argv[1])
def mount(*options):
    subprocess.run(["mount", "-t", "tmpfs", *options, "x", disk], check=True)
def leave(free):
    (disk / "filler").unlink(missing_ok=True)
    space = os.statvfs(disk)
    with open(disk / "filler", "wb") as file:
        file.write(bytes(max(0, space.f_bavail * space.f_frsize - free)))
def refused(deed, *words):
    try:
        deed()
    except MachineError as error:
        text = f"{error} | {error.hint}"
        assert all(word in text for word in (str(disk), *words)), text
        return True
    return False
def left():
    return [*home.runs.iterdir(), *(path for path in (home.path / "code").glob("*") if not frozen._intact(path))]

mount("-o", "size=6m")
home = Home(disk / "home").create()
for free in (0, 4096, 100_000, 300_000):  # while the code is copied
    leave(free)
    assert refused(lambda: queue(home, "a", "b", "c"), "cannot freeze", "the disk is full") and not left(), free
leave(4 << 20)
frozen.freeze(home)
for free in range(0, 400_000, 4096):  # while the folders are made
    leave(free)
    if not refused(lambda: queue(home, "a", "b", "c"), "cannot write a run folder", "the disk is full"):
        break
    assert not left(), free
assert free > 4096 and len(home.run_dirs()) == 3, free
leave(1 << 20)
run = home.run_dirs()[0]
processes.record_end(run, "failed", reason="to be retried")
run.log.write_text("x" * 50_000)
leave(0)
assert refused(lambda: labels.change(run, note="n" * 9000), "labels")
assert refused(lambda: processes.stop(home.run_dirs()[1:2]), "the disk is full")
assert refused(lambda: folders.retry(run), "the disk is full", "nothing is lost")
assert run.status() in ("failed", "killed") and run.log.stat().st_size == 50_000
leave(1 << 20)
folders.retry(run)
assert run.status() == "queued" and (run.path / "attempts/001/stdout.log").stat().st_size == 50_000
leave(0)
folders.remove(home, home.run_dirs()[1])  # deleting needs no room
leave(1 << 20)
processes.record_end(run, "failed", reason="to be retried")
subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
deeds = [lambda: queue(home, "a"), lambda: folders.requeue(run), lambda: folders.retry(run),
         lambda: folders.remove(home, run), lambda: labels.change(run, note="x"), lambda: processes.request_stop(run)]
assert [refused(deed, "ead-only") for deed in deeds] == [True] * len(deeds)
subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
(disk / "filler").unlink()
before, plans = len(home.run_dirs()), plan(["digits-trades"], seeds="0-1")
for more in range(1, 40):  # files that may be open beyond those that are
    open_now = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + more - 1, 4096))
    failed = refused(lambda: folders.create(home, plans), "ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    if not failed:
        break
    assert len(list(home.runs.iterdir())) == before
assert more > 1 and len(home.run_dirs()) == before + 2 == len(list(home.runs.iterdir()))
print("all of it")
"""


def test_a_disk_that_refuses_is_told_with_the_path_and_the_remedy(tmp_path: Path) -> None:
    """Full at every step, read-only, and no more files to open: nothing is left half made."""
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*own, "mount", "-t", "tmpfs", "x", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a file system of his own")
    tests = Path(__file__).parent
    command = [*own, sys.executable, "-c", FULL, str(disk), str(tests), str(tests.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout == "all of it\n", done.stderr


# --- processes ----------------------------------------------------------------------------------------------


def test_the_engine_holds_the_lock_as_long_as_it_lives(home: Home) -> None:
    [run] = queue(home, "sleep")
    child = start(run, threads=3)
    assert os.getsid(child.pid) == child.pid
    until(lambda: starts(run))
    (run.path / "launch.json").unlink()  # as if the starter had been killed before it wrote this
    assert run.status() in ("queued", "running")
    with pytest.raises(processes.Busy):
        processes.start(run, engine=ENGINE)
    child.kill()
    child.wait()
    with processes.claim(run):
        pass
    assert len(starts(run)) == 1 and starts(run)[0].endswith(" 3")


def test_only_queued_runs_are_started(home: Home) -> None:
    [run] = queue(home, "quick")
    start(run).wait()
    assert processes.start(run, engine=ENGINE) is None
    assert len(starts(run)) == 1


def test_an_engine_that_does_not_exist(home: Home) -> None:
    [run] = queue(home, "quick")
    with pytest.raises(MachineError, match="cannot start /nowhere/python"):
        processes.start(run, engine=["/nowhere/python"])
    assert run.status() == "queued"


def test_it_works_where_the_command_was_typed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [run] = queue(home, "sleep")
    monkeypatch.chdir("/")
    child = start(run)
    assert Path(f"/proc/{child.pid}/cwd").resolve() == tmp_path.resolve()
    processes.kill(run)
    child.wait()


def test_stop_kills_what_ignores_sigterm(home: Home) -> None:
    [run] = queue(home, "deaf")
    child = start(run)
    until(run.events.exists)
    until(lambda: run.events.stat().st_size > 500)
    processes.request_stop(run)
    assert run.status() == "stopping"
    processes.stop([run], grace=0.3)
    assert child.wait() == -signal.SIGKILL
    ended = run.json("exit.json")
    assert (ended["status"], ended["code"], ended["signal"]) == ("killed", 137, "SIGKILL")
    assert run.status() == "killed"


STUBBORN = """
import os, signal, subprocess, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from engine.lifecycle import Lifecycle
from engine.rundir import RunDir
run = RunDir(Path(sys.argv[3]))
CHILD = "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {}; print(flush=True); time.sleep(60)"
with Lifecycle(run) as life:
    for away in ("0", "os.setpgid(0, 0)", "os.setsid()"):
        child = subprocess.Popen([sys.executable, "-c", CHILD.format(away)], stdout=subprocess.PIPE)
        child.stdout.readline()
        with open(run.path / "children", "a") as file:
            file.write(f"{child.pid}\\n")
        if sys.argv[2] == "leaves" and away != "0":
            break
    (run.path / "ready").touch()
    while not life.should_stop():
        time.sleep(0.02)
    run.checkpoints.mkdir()
    unfinished = run.checkpoints / ".last.safetensors.1.tmp"
    unfinished.touch()
    while not (run.path / "seen").exists():
        time.sleep(0.02)
    if sys.argv[2] == "deaf":
        time.sleep(60)
    unfinished.rename(run.checkpoint("last"))
    sys.exit(life.end("killed", 143, "stopped by SIGTERM"))
"""


@pytest.mark.parametrize("kind", ["deaf", "leaves"])
def test_stop_says_its_stages_and_leaves_nobody(home: Home, kind: str) -> None:
    """Neither children that ignore SIGTERM nor those that put themselves in a group or a session of their own."""
    [run] = queue(home, "stubborn")
    child = processes.start(run, engine=[sys.executable, "-c", STUBBORN, str(ROOT), kind])
    assert child is not None
    until((run.path / "ready").exists)
    pids = [int(line) for line in (run.path / "children").read_text().split()]
    told: list[str] = []

    def say(of: RunDir, stage: str) -> None:
        assert of == run
        told.append(stage)
        if "is writing" in stage:
            (run.path / "seen").touch()

    grace = 3.0 if kind == "deaf" else 60.0
    processes.stop([run], grace, say=say)
    child.wait()
    until(lambda: all(process_start_time(pid) is None for pid in pids))
    asked = f"asked to stop (SIGTERM); it has {grace:g} s for its checkpoint"
    assert told == {
        "deaf": [asked, "is writing its checkpoint", "killed after 3 s: 4 processes",
                 "killed: did not stop in time and was killed"],
        "leaves": [asked, "is writing its checkpoint", "has written its checkpoint",
                   "killed what it left behind: 2 processes", "killed: stopped by SIGTERM"],
    }[kind]  # fmt: skip
    with processes.claim(run):
        pass


def test_a_full_disk_keeps_no_run_from_being_stopped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    [run] = queue(home, "sleep")
    child = start(run)
    until(run.checkpoint("last").exists)

    def full(path: RunDir, name: str, value: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunDir, "write_json", full)
        processes.request_stop(run)
    assert child.wait() == 143


def test_stop_cancels_what_has_not_started(home: Home) -> None:
    [run] = queue(home, "quick")
    processes.stop([run])
    assert run.json("exit.json")["reason"] == "cancelled before it started"
    assert processes.start(run, engine=ENGINE) is None


def test_what_is_done_to_a_copied_home_leaves_the_run_alone(home: Home, tmp_path: Path) -> None:
    [run] = queue(home, "sleep")
    child = start(run)
    until(run.checkpoint("last").exists)
    copied = Home(tmp_path / "copied")
    shutil.copytree(home.path, copied.path)
    copy = copied.run(run.id)
    assert copy.status() == "lost"
    processes.stop([copy])
    processes.kill(copy)
    folders.requeue(copy)
    assert copy.status() == "queued"
    folders.remove(copied, copy)
    assert child.poll() is None and run.status() == "running" and not copy.path.exists()


def test_a_foreign_process_with_the_same_pid_is_not_signalled(home: Home) -> None:
    [run] = queue(home, "sleep")
    foreign = subprocess.Popen(["sleep", "30"], start_new_session=True)
    try:
        started = process_start_time(foreign.pid)
        assert started is not None
        who = {"pid": foreign.pid, "start_time": started - 100, "host": os.uname().nodename}
        run.write_json("launch.json", who)
        assert run.status() == "lost"
        processes.kill(run)
        processes.stop([run], grace=0)
        assert foreign.poll() is None
    finally:
        foreign.kill()
        foreign.wait()


def test_a_run_on_another_host_is_left_alone(home: Home) -> None:
    [run] = queue(home, "sleep")
    run.write_json("launch.json", {"pid": 1, "start_time": 0.0, "host": "elsewhere"})
    with pytest.raises(MachineError, match="works on elsewhere"):
        processes.request_stop(run)
    run.write_json("exit.json", {"status": "killed"})


# --- slots --------------------------------------------------------------------------------------------------


def test_gpus_are_those_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-3f-1)'\necho 'GPU 1: A (UUID: GPU-4e-2)'\n")
    program.chmod(0o755)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert slots.gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert slots.gpus() == ["1"]
    for visible, numbers in (("GPU-4e-2", ["1"]), ("GPU-3f, GPU-4", ["0", "1"]), ("GPU-5", []), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert slots.gpus() == numbers
    monkeypatch.setenv("PATH", "/nowhere")
    assert slots.gpus() == []


@pytest.mark.parametrize(
    ("device", "available", "gpu"),
    [("auto", [], ""), ("auto", ["0"], "any"), ("cpu", ["0"], ""), ("cuda", [], "any"), ("cuda:1", ["0"], "1")],
)
def test_what_a_device_takes(device: str, available: list[str], gpu: str) -> None:
    assert slots.gpu_of(device, available) == gpu


def test_cores_are_shared_out(monkeypatch: pytest.MonkeyPatch, home: Home) -> None:
    monkeypatch.setattr(slots, "cores", lambda: 8)
    monkeypatch.setattr(slots, "gpus", list)
    plans = plan(["fashion-mnist-trades"], seeds="0-2")
    settled, share = slots.share_out(plans, None)
    assert [made.recipe.run.threads for made in settled] == [2, 2, 2] and share is None
    settled, share = slots.share_out(plans, 1)
    assert settled[0].recipe.run.threads == 8 and share == 1.0
    settled, share = slots.share_out(plan(["fashion-mnist-trades"], overrides=["run.threads=3"]), 16)
    assert settled[0].recipe.run.threads == 3 and share == 1 / 16
    [run] = folders.create(home, settled, share=None)
    assert slots.need(run, []) == slots.Need(3 / 8, "", 3)
    run.recipe.write_text("broken =")
    assert slots.need(run, []).share == 1.0


# --- following ----------------------------------------------------------------------------------------------


def test_tail_gives_each_event_once_and_notices_another_file(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == (False, [])
    lines = [encode("step", float(n), {"step": n}) for n in range(3)]
    path.write_bytes(lines[0] + lines[1][:9])
    again, events = tail.read()
    assert again and [event["step"] for event in events] == [0]
    with open(path, "ab") as file:
        file.write(lines[1][9:] + b"torn\n" + lines[2])
    assert [event["step"] for event in tail.read()[1]] == [1, 2]
    path.write_bytes(lines[0])
    again, events = tail.read()
    assert again and [event["step"] for event in events] == [0]


def test_a_resumed_run_does_not_tell_its_events_twice(home: Home) -> None:
    [run] = queue(home, "quick")
    run.events.write_bytes(b"".join(encode("step", float(n), {"step": n}) for n in (1, 2, 3)))
    follower = Follower(run)
    assert len(follower.poll()) == 3
    run.events.write_bytes(b"".join(encode("step", t, {"step": n}) for n, t in ((1, 1.0), (2, 9.0))))
    assert [event["t"] for event in follower.poll()] == [9.0]


def test_a_run_that_is_deleted_while_it_is_followed_says_so(home: Home) -> None:
    [run] = queue(home, "quick")
    follower = Follower(run)
    folders.remove(home, run)
    assert follower.poll() == [] and follower.ended and "deleted" in follower.reason()


def test_progress_reckons_the_rest() -> None:
    progress = Progress()

    def fold(event: str, t: float, **fields: object) -> None:
        progress.fold({"event": event, "t": t, **fields})

    fold("start", 0.0, epochs=10, steps_per_epoch=4)
    assert progress.eta() is None
    fold("stage", 0.0, stage="train")
    fold("step", 1.0, step=1, epoch=1, loss=2.0)
    assert progress.share == pytest.approx(0.025) and progress.eta() == pytest.approx(9.75 * 4)
    for epoch, seconds in ((1, 50.0), (2, 2.0), (3, 3.0), (4, 4.0)):
        fold("epoch", 10.0 * epoch, epoch=epoch, epochs=10, step=4 * epoch, seconds=seconds, loss="nan")
    assert progress.share == 0.4 and progress.eta() == pytest.approx(6 * 3.0)
    fold("epoch", 55.0, epoch=5, epochs=10, step=20, seconds=4.0, selection_seconds=6.0)
    assert progress.eta() == pytest.approx(5 * (3.0 + 4.0 + 10.0) / 3)  # the look for `best` takes its time too
    fold("stage", 90.0, stage="evaluate")
    assert progress.eta() is None
    for metric, value in (("aa", 50.0), ("natural", 90.0), ("odd", "?")):
        fold("eval", 99.0, checkpoint="best", metric=metric, value=value)
    assert progress.results() == {"natural": 90.0, "aa": 50.0} and list(progress.results()) == ["natural", "aa"]


def test_the_packages_are_found_by_the_engine() -> None:
    env = {**os.environ, **processes.import_path()}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "engine", "--help"], cwd="/", env=env, capture_output=True, check=False
    )
    assert done.returncode == 0 and b"RUN_FOLDER" in done.stdout


def test_errors_do_not_keep_the_others_from_being_stopped(home: Home) -> None:
    away, here = queue(home, "sleep", "quick")
    away.write_json("launch.json", {"pid": 1, "start_time": 0.0, "host": "elsewhere"})
    with pytest.raises(MachineError, match="works on elsewhere"):
        processes.stop([away, here])
    assert here.status() == "killed"
    away.write_json("exit.json", {"status": "killed"})


def test_an_engine_started_by_hand_is_stopped_alone(home: Home) -> None:
    """It shares its process group with the shell that started it, which must live."""
    [run] = queue(home, "sleep")
    shell = subprocess.Popen(["sh", "-c", f"{sys.executable} {ENGINE[-1]} {run.path} >> {run.log}; echo lived on"],
                             stdout=subprocess.PIPE, start_new_session=True)  # fmt: skip
    until(run.checkpoint("last").exists)
    processes.stop([run], grace=10)
    assert shell.communicate(timeout=300)[0] == b"lived on\n"
    assert run.json("exit.json")["reason"] == "stopped by SIGTERM"


def test_an_engine_that_dies_while_it_is_stopped_is_killed_not_lost(home: Home) -> None:
    [run] = queue(home, "deaf")
    child = start(run)
    until(run.checkpoint("last").exists)
    processes.request_stop(run)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert run.status() == "lost"
    processes.stop([run])
    assert run.status() == "killed"


def test_a_suspended_engine_hears_that_it_is_to_stop(home: Home) -> None:
    [run] = queue(home, "sleep")
    child = start(run)
    until(run.checkpoint("last").exists)
    os.kill(child.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    processes.stop([run], grace=20)
    assert child.wait() == 143 and run.json("exit.json")["reason"] == "stopped by SIGTERM"


def test_a_stop_spares_whoever_resumed_the_run_meanwhile(home: Home) -> None:
    """In another terminal, while this one was suspended; the grace is over when it looks again."""
    [run] = queue(home, "sleep")
    first = start(run)
    until(run.checkpoint("last").exists)
    resumed: list[subprocess.Popen[bytes]] = []
    told: list[str] = []

    def say(of: RunDir, stage: str) -> None:
        told.append(stage)
        if not resumed:
            assert first.wait() == 143
            folders.requeue(run)
            resumed.append(start(run))
            until((run.path / "heartbeat.json").exists)

    processes.stop([run], grace=0.0, say=say)
    assert resumed[0].poll() is None and run.status() == "running"
    assert told[-1] == "running" and not any("killed" in stage for stage in told), told


@pytest.mark.parametrize("number", [*STOP_SIGNALS, signal.SIGSEGV, signal.SIGRTMIN + 1])
def test_a_signal_means_the_same_before_the_engine_listens(home: Home, number: int) -> None:
    [run] = queue(home, "quick")
    child = processes.start(run, engine=(sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"))
    assert child is not None and child.wait() == -number
    scheduler._record(run, child)
    assert (
        run.status() == STOP_SIGNALS.get(number, "killed")
        and f"signal {int(number)} " in run.json("exit.json")["reason"]
    )


def test_a_folder_that_has_gone_cannot_be_claimed(home: Home) -> None:
    with pytest.raises(UsageError, match="has gone"):
        processes.request_stop(home.run("gone"))
    [run] = queue(home, "quick")
    run.log.mkdir()
    with pytest.raises(MachineError, match="cannot write"):
        processes.request_stop(run)
    run.log.rmdir()
