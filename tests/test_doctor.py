"""`trainctl doctor`: what it finds, and what --fix mends, on real processes, locks and files."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from fake_trainctl import COMMAND, ENGINE, ROOT, cli, environment, humble, queue, tidy, until
from folders import make_run

from engine.rundir import RunDir, me, process
from trainctl.doctor import fix, gpus, leftovers, locks, machine, orphans, programs, runs, workers
from trainctl.doctor.checks import findings
from trainctl.doctor.finding import Finding
from trainctl.doctor.view import View
from trainctl.home import Home
from trainctl.launch import folders, processes, scheduler
from trainctl.launch import queue as order
from trainctl.launch.gpus import Gpu, Gpus
from trainctl.registry import ingest


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home").create()


def found(home: Home) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings(home)}


def wrong(home: Home, *groups: str) -> set[str]:
    """The checks of these groups that found something."""
    return {each.check for each in findings(home) if each.status != "ok" and each.group in groups}


@contextmanager
def fake(
    folder: Path, module: str, *arguments: str, script: str = "", stdout: Any = subprocess.PIPE
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m MODULE ARGUMENTS…`, whose module does what `script` says and sleeps."""
    path = folder / "fake" / (module.replace(".", "/") + ".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import signal, time\n{script}\nprint(flush=True)\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": str(folder / "fake")}
    command = [sys.executable, "-P", "-m", module, *arguments]
    child = subprocess.Popen(command, env=environment, stdout=stdout, start_new_session=True)
    try:
        if child.stdout:
            child.stdout.readline()  # it has come to the end of its script
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def program(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script first on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    if str(folder) not in os.environ["PATH"]:
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_command(home: Home, tmp_path: Path) -> None:
    done = cli(home, "doctor", "--json")
    assert done.returncode == 0, done.stderr
    seen = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert {"check", "status", "detail", "hint", "fixable"} <= set(seen["torch"]) and seen["torch"]["status"] == "ok"
    assert seen["home"]["detail"] == str(home.path) and seen["data: digits"]["status"] == "ok"
    assert "cifar-10-batches-py" in seen["data: cifar10"]["detail"]
    shown = cli(home, "doctor", "--fix")
    assert shown.stderr == "nothing to mend\n" and "scheduler" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 100
    (blocked := tmp_path / "file").write_text("")
    done = cli(home, "doctor", "--fix", "--home", str(blocked / "home"), "--json")
    assert done.returncode == 3
    assert [finding["check"] for finding in json.loads(done.stdout) if finding["status"] == "missing"] == ["home"]


@pytest.fixture
def served(home: Home) -> Iterator[Home]:
    """A home in which engines and a scheduler are started."""
    with tidy(home):
        yield home


def test_lost_runs_are_explained_and_written_down(served: Home) -> None:
    home = served
    [run] = queue(home, "sleep")
    child = processes.start(run, engine=ENGINE)
    assert child is not None
    until(run.checkpoint("last").exists)
    child.kill()
    child.wait()
    rebooted, elsewhere, reused = (make_run(home, name, status="lost") for name in ("booted", "remote", "reused"))
    rebooted.write_json("heartbeat.json", {**me(), "boot": "another", "t": time.time() - 7300})
    elsewhere.write_json("heartbeat.json", {**me(), "host": "far", "t": time.time() - 4955})
    os.utime(elsewhere.path / "heartbeat.json", (time.time() - 4955,) * 2)
    reused.write_json("heartbeat.json", {**me(), "ticks": 1, "start_time": 1.0, "t": time.time() - 300})
    [waiting] = queue(home, "quick")

    seen = found(home)
    said = seen["lost runs"].detail
    assert seen["lost runs"].fixable and run.id in seen["lost runs"].hint and seen["scheduler"].fixable
    assert f"{run.id} sleep-s1: process {child.pid} has gone, silent for" in said
    assert "the machine was started anew since, silent for 2 h" in said
    assert "on host far, silent for 83 min" in said
    assert f"process {os.getpid()} has gone, its number is reused, silent for 5 min" in said

    done = cli(home, "doctor", "--fix")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("written down as lost") == 3 and "a scheduler was started: 1 run waited" in done.stderr
    assert "scheduler          at work" in done.stdout  # it was waited for
    for each in (run, rebooted, reused):
        assert each.json("exit.json")["status"] == "lost" and "silent for" in each.json("exit.json")["reason"]
    assert not (elsewhere.path / "exit.json").exists() and elsewhere.status() == "lost"  # its own host knows better
    until(lambda: waiting.status() == "done")
    assert [line for line in fix.mend(home) if "started" not in line] == []
    assert found(home)["lost runs"].detail.startswith("1 run ") and not found(home)["lost runs"].fixable
    order.pause(home)
    folders.requeue(run)
    assert run.status() == "queued" and run.checkpoint("last").exists()


def test_a_lost_run_that_is_retried_need_not_be_resumed(home: Home) -> None:
    make_run(home, "aaaa", status="lost", recipe_table={"run": {"retries": 1}})
    seen = found(home)["lost runs"]
    assert "the queue takes it up again by itself" in seen.detail and "trainctl resume" not in seen.hint
    make_run(home, "bbbb", status="lost")
    assert found(home)["lost runs"].hint.startswith("trainctl resume bbbb;")


def test_a_run_that_is_resumed_meanwhile_is_left_alone(home: Home) -> None:
    run = make_run(home, "aaaa", status="lost")
    view = View(home)
    assert runs.lost(view) == [run]
    with processes.claim(run):
        assert list(fix.mend(home)) == []
    assert run.json("exit.json") == {}


def test_orphans(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "WELL_OVER", 0.0)
    monkeypatch.setattr(fix, "GRACE", 0.2)
    ended, at_work, again, looked_at = (
        make_run(home, name, status="running") for name in ("over", "work", "anew", "look")
    )
    other = Home(tmp_path / "other").create()
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    with (
        fake(tmp_path, "engine", str(home.runs / "gone")) as gone,
        fake(tmp_path, "engine", str(ended.path) + "/", script=deaf) as over,
        fake(tmp_path, "engine", str(at_work.path)) as working,
        fake(tmp_path, "engine", str(again.path)) as strange,
        fake(tmp_path, "engine", str(looked_at.path), "--evaluate", "pgd20") as evaluates,
        fake(tmp_path, "engine", str(other.runs / "gone")) as foreign,
        fake(tmp_path, "trainctl.launch.scheduler", str(home.path)) as idle,
        fake(tmp_path, "reader", str(home.runs / "gone")) as reader,
    ):
        for run in (at_work, again):
            for name in ("launch.json", "heartbeat.json"):
                run.write_json(name, {**process(working.pid), "t": time.time()})
        for run in (ended, looked_at):
            run.write_json("exit.json", {"status": "done", "code": 0, "t": time.time()})
        seen = found(home)["orphans"]
        for child, why in (
            (gone, "its folder gone is gone"), (over, "run over ended "),
            (strange, "run anew has another process"), (idle, "a scheduler without the lock"),
        ):  # fmt: skip
            assert f"process {child.pid}: {why}" in seen.detail
        assert seen.fixable and seen.detail.startswith("4 processes")
        said = list(fix.mend(home))
        assert None not in [child.poll() for child in (gone, over, idle)]
        for child, how in ((gone, "SIGTERM"), (over, "SIGKILL"), (idle, "SIGTERM")):
            assert [line for line in said if line.startswith(f"process {child.pid} ended ({how}): ")]
        assert len(said) == 3
        assert [child.poll() for child in (working, strange, evaluates, foreign, reader)] == [None] * 5
        assert list(fix.mend(home)) == []


def test_what_may_still_be_on_its_way_is_no_orphan(home: Home, tmp_path: Path) -> None:
    run = make_run(home, "aaaa", status="running")
    with fake(tmp_path, "engine", str(run.path)) as leaving, fake(tmp_path, "engine", str(home.runs / "away")) as moved:
        run.write_json("exit.json", {"status": "done", "code": 0, "t": time.time()})
        assert [orphan.worker.pid for orphan in orphans.orphans(View(home))] == [moved.pid]
        # A new attempt starts after its folder's last exit.json was written, also if that is long ago.
        run.write_json("exit.json", {"status": "done", "code": 0, "t": time.time() - 3600})
        assert leaving.pid not in [orphan.worker.pid for orphan in orphans.orphans(View(home))]


def test_the_folder_of_an_engine_that_was_moved_is_not_gone(home: Home, tmp_path: Path) -> None:
    run = make_run(home, "aaaa", status="running")
    with run.log.open("wb") as log, fake(tmp_path, "engine", str(run.path), stdout=log) as child:
        until(lambda: any(worker.pid == child.pid for worker in workers.workers(home)))
        run.path.rename(tmp_path / "elsewhere")
        [orphan] = orphans.orphans(View(home))
        assert not orphan.certain and f"was moved to {tmp_path / 'elsewhere'}" in orphan.why
        shutil.rmtree(tmp_path / "elsewhere")
        assert [orphan.certain for orphan in orphans.orphans(View(home))] == [True]


def test_gpu_memory_of_a_run_that_ended(home: Home, tmp_path: Path) -> None:
    with fake(tmp_path, "engine", str(home.runs / "gone")) as child:
        view = View(home)
        view.gpus = Gpus((Gpu("1", processes=((child.pid, 3 << 30),)),))
        [first, *_] = [finding for finding in orphans.check(view) if finding.check == "orphans"]
        assert "it holds 3.0 GiB of GPU 1" in first.detail


def named_in_the_kernels_table(file: Path) -> bool:
    """Whether /proc/locks names the device of `file` as stat does; of btrfs, for one, it names another."""
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        about = os.fstat(held.fileno())
        where = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino} "
        return where in locks.LOCKS.read_text()


def test_locks_and_who_stands_still(home: Home, tmp_path: Path) -> None:
    if not named_in_the_kernels_table(tmp_path / "held"):
        pytest.skip("/proc/locks names another device than stat does here, so nobody can tell who holds a lock")
    assert found(home)["locks"].detail == "free"
    hold = f"import fcntl\nf = open({str(home.path / 'scheduler.lock')!r}, 'w')\nfcntl.flock(f, fcntl.LOCK_EX)"
    run = make_run(home, "aaaa", status="running")
    with fake(tmp_path, "trainctl.launch.scheduler", str(home.path), script=hold) as child:
        assert found(home)["locks"].detail == f"scheduler.lock by process {child.pid}"
        with fake(tmp_path, "engine", str(run.path)) as still:
            run.write_json("heartbeat.json", {**process(still.pid), "t": time.time() - 485})
            assert f"aaaa digits-trades-s0: process {still.pid}, for 8 min" in found(home)["silent runs"].detail
            for each in (child, still):
                each.send_signal(signal.SIGSTOP)
                until(lambda each=each: locks.state(each.pid) == "T")
            seen = found(home)
            assert seen["locks"].status == "warning" and f"kill -CONT {child.pid}" in seen["locks"].hint
            assert f"kill -CONT {still.pid}" in seen["stopped runs"].hint and "silent runs" not in seen
            assert list(fix.mend(home)) == [] and child.poll() is None and still.poll() is None


def test_a_lock_in_the_kernels_table(tmp_path: Path) -> None:
    (file := tmp_path / "lock").write_text("")
    about, table = file.stat(), tmp_path / "locks"
    where = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    table.write_text(
        f"odd\n1: FLOCK  ADVISORY  WRITE 12 00:00:1 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 14 {where} 0 EOF\n"
    )
    assert locks.holder(file, table) is None
    table.write_text(table.read_text() + f"2: FLOCK  ADVISORY  WRITE 13 {where} 0 EOF\n")
    assert locks.holder(file, table) == 13
    table.write_text(f"2: FLOCK  ADVISORY  WRITE 0 {where} 0 EOF\n")  # of another container
    assert locks.holder(file, table) is None and locks.holder(tmp_path / "none", table) is None


def test_a_lock_over_a_network_may_be_stale(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "filesystem", lambda path: "nfs4")
    monkeypatch.setattr(scheduler, "alive", lambda home: True)
    [seen] = locks.check(View(home))
    assert "held by no process of this machine" in seen.detail and "scheduler.lock" in seen.hint


def test_the_queue_that_somebody_stopped(home: Home) -> None:
    held, _ = queue(home, "quick", "quick")
    order.hold([held], True)
    order.pause(home)
    seen = found(home)
    assert seen["queue"].detail == "paused: 2 queued runs will not start" and seen["scheduler"].status == "ok"
    assert held.id in seen["held runs"].detail and list(fix.mend(home)) == [] and not scheduler.alive(home)


def test_only_leftovers_are_deleted(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(path: Path, count: int = 0, hours: float = 2) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * count)
        for each in (path, path.parent):
            os.utime(each, (time.time() - 3600 * hours,) * 2)

    kept = make_run(home, "kept")
    put(kept.checkpoints / ".last.safetensors.99999977.tmp", 9000)
    put(kept.path / ".exit.json.99999978.tmp", hours=0.5)
    put(home.runs / "halfmade" / ".run.json.staged")
    put(home.runs / "halfmade" / "recipe.toml", 1000)
    put(home.runs / "justmade" / ".run.json.staged", hours=0.5)
    put(home.runs / "thesis" / "thesis.tex")
    put(home.runs / "byhand" / "recipe.toml")
    put(kept.path / f".heartbeat.json.{os.getpid()}.tmp")  # of a process that lives
    put(tmp_path / "mine" / ".private.1234567.tmp")
    kept.evaluations.symlink_to(tmp_path / "mine")
    put(home.runs / "nameless" / "checkpoints" / "last.safetensors")
    put(home.runs / ".gone.removed" / "checkpoints" / "last.safetensors", 5000)
    for number in (9, 10, 11):
        put(home.path / f"index.db.damaged-{number}")
    (home.runs / "link").symlink_to(home.path)

    seen = found(home)
    assert "nameless: run.json is missing" in seen["damaged runs"].detail
    assert seen["leftovers"].fixable and "1 half-made run, 1 kB" in seen["leftovers"].detail
    # Somebody may be deleting that folder this moment: when it was renamed is what counts, and cannot be made up.
    assert sorted(fix.mend(home)) == [
        "1 half-made run deleted, 1 kB", "1 temporary file deleted, 9 kB", "2 damaged indexes deleted, 0 kB",
    ]  # fmt: skip
    monkeypatch.setattr(leftovers, "AGE", -1.0)
    assert "1 half-deleted run deleted, 5 kB" in list(fix.mend(home))
    assert sorted(path.name for path in home.runs.iterdir()) == ["byhand", "kept", "link", "nameless", "thesis"]
    assert [path.name for path in home.path.glob("index.db.damaged-*")] == ["index.db.damaged-11"]
    assert list(fix.mend(home)) == [] and kept.status() == "done" and len(list((tmp_path / "mine").iterdir())) == 1


def test_a_damaged_index_is_built_again(home: Home) -> None:
    make_run(home, "aaaa")
    ingest.refresh(home)
    assert found(home)["index"].status == "ok"
    data = bytearray(home.index.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    home.index.write_bytes(data)
    assert found(home)["index"].fixable
    said = list(fix.mend(home))
    assert len(said) == 1 and said[0].startswith("the index was built again") and list(fix.mend(home)) == []
    with sqlite3.connect(home.index) as connection:
        assert connection.execute("SELECT id FROM runs").fetchall() == [("aaaa",)]


def test_damaged_and_hostile_folders(home: Home) -> None:
    make_run(home, "aaaa")
    events = make_run(home, "torn")
    events.events.write_bytes(b"\0" * 10 + b"\n" + events.events.read_bytes())
    ingest.refresh(home)
    ended = make_run(home, "nul")
    ended.recipe.write_bytes(b"\0" * 100)
    make_run(home, "empty", status="queued").recipe.write_text("")
    damaged = make_run(home, "weights")
    damaged.checkpoints.mkdir()
    (damaged.checkpoints / "last.safetensors.damaged").write_bytes(b"")
    for name in ("pipe", "esc\x1b[2J", "deep", "huge", "looped"):
        make_run(home, name, status="lost")
    (home.runs / "pipe" / "exit.json").unlink(missing_ok=True)
    os.mkfifo(home.runs / "pipe" / "exit.json")
    (home.runs / "deep" / "run.json").write_text("[" * 100_000)
    (home.runs / "huge" / "heartbeat.json").write_text(
        json.dumps({"pid": 10**30, "start_time": 1, "host": me()["host"], "boot": ["x"], "t": 10**400})
    )
    (home.runs / "looped" / "launch.json").unlink()
    (home.runs / "looped" / "launch.json").symlink_to("launch.json")
    (home.runs / "a file").write_text("")
    order.pause(home)

    done = cli(home, "doctor", "--fix", "--json")
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    seen = {finding["check"]: finding for finding in json.loads(done.stdout)}
    bad = seen["damaged runs"]["detail"]
    for line in ("pipe: exit.json is no plain file", "deep: run.json cannot be read", "empty: recipe.toml cannot"):
        assert line in bad
    assert "nul: recipe.toml is damaged" in bad or "more" in bad
    assert "torn: 1 line of events.jsonl, the first at byte 0" in seen["damaged files"]["detail"]
    assert "weights: checkpoints/last.safetensors.damaged" in seen["damaged files"]["detail"]
    assert "\x1b" not in cli(home, "doctor").stdout
    assert RunDir(home.runs / "huge").json("exit.json")["status"] == "lost"


def test_a_folder_into_which_nobody_may_look(home: Home) -> None:
    order.pause(home)
    [run] = queue(home, "quick")  # it alone names a copy of the code
    make_run(home, "open")
    for path in (copies := list((home.path / "code").iterdir())):
        os.utime(path, (1.0, 1.0))
    run.path.chmod(0)
    try:
        done = cli(home, "doctor", "--fix", "--json", preexec_fn=humble)
    finally:
        run.path.chmod(0o755)
    seen = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert (
        seen["closed runs"]["detail"].endswith(f"{run.id}: Permission denied")
        and "ls -ld" in seen["closed runs"]["hint"]
    )
    assert "damaged runs" not in seen and seen["runs"]["detail"] == "1 done" and "leftovers" in seen
    assert copies and all(path.exists() for path in copies) and run.status() == "queued"


def test_data_that_the_queue_needs(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINCTL_DATA", str(tmp_path))
    order.pause(home)
    settings: dict[str, Any] = {"data": {"dataset": "folder", "path": str(tmp_path / "images")}}
    first, second = (make_run(home, name, status="queued", recipe_table=settings) for name in ("aaaa", "bbbb"))
    make_run(home, "cccc", status="queued", recipe_table={"data": {"dataset": "cifar10"}})
    make_run(home, "done", recipe_table={"data": {"dataset": "cifar100"}})
    lacking = [finding for finding in findings(home) if finding.check == "data of the queue"]
    assert [finding.status for finding in lacking] == ["missing", "warning"]
    assert f"folder is not at {tmp_path / 'images'}, and aaaa, bbbb need it" in lacking[0].detail
    assert "cifar10 is not at" in lacking[1].detail and "cccc needs it" in lacking[1].detail
    assert cli(home, "doctor").returncode == 3
    (tmp_path / "images").mkdir()
    (tmp_path / "cifar-10-batches-py").mkdir()
    assert "data of the queue" not in found(home) and first.status() == second.status() == "queued"


def test_gpus_and_their_driver(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(script: str) -> dict[str, Finding]:
        program(tmp_path / "bin", "nvidia-smi", script, monkeypatch)
        view = View(home)
        return {finding.check: finding for finding in gpus.check(view)}

    program(
        tmp_path / "bin", "dmesg", "echo 'NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.'", monkeypatch
    )
    monkeypatch.setattr(gpus, "MODULE", tmp_path / "version")
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22\n")
    monkeypatch.setattr(gpus, "driver_cuda", lambda: "12.4")
    monkeypatch.setattr(gpus, "torch_cuda", lambda: "13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc")
    two = "printf '0, NVIDIA A100, 550.54, 0, GPU-3f\\n1, NVIDIA A100, 550.54, 3, GPU-4e\\n'"
    seen = look(two)
    assert seen["gpus"].detail == "0 NVIDIA A100, 1 NVIDIA A100; driver 550.54"
    assert "hides all 2 GPUs" in seen["visible gpus"].detail
    assert seen["torch and cuda"].detail == "torch is built for CUDA 13.0, the driver gives 12.4"
    assert "GPU 1: 3 memory errors" in seen["health of gpus"].detail and "79, GPU has" in seen["health of gpus"].detail
    monkeypatch.setattr(gpus, "torch_cuda", lambda: "12.8")  # a newer minor version runs on an older driver
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    seen = look("printf '0, NVIDIA A100, 550.54, [N/A], GPU-3f\\n1, NVIDIA A100, 550.54, [N/A], GPU-4e\\n'")
    assert seen["torch and cuda"].status == "ok" and "visible gpus" not in seen
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-4e")
    assert "visible gpus" not in look(two)
    monkeypatch.setattr(gpus, "torch_cuda", lambda: "")
    assert "built without CUDA" in look(two)["torch and cuda"].detail
    mismatch = "Failed to initialize NVML: Driver/library version mismatch\\nNVML library version: 550.90\\n"
    seen = look(f"printf '{mismatch}'; exit 18")
    assert "NVML is 550.90, the module is 550.54.14" in seen["gpus"].detail and "start the machine" in seen["gpus"].hint
    assert "kernel module" in look('echo "couldn\'t communicate with the NVIDIA driver"; exit 9')["gpus"].hint
    assert "fails: GPU is lost" in look("echo 'GPU is lost'; exit 15")["gpus"].detail
    monkeypatch.setattr("trainctl.doctor.view.ask", lambda *command: programs.ask(*command, patience=0.2))
    started = time.monotonic()
    assert "gave no answer in 0.2 s" in look("exec sleep 30")["gpus"].detail and time.monotonic() - started < 20


def test_the_cuda_of_torch_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = gpus.torch_cuda()
    assert built is not None and (built == "" or built[0].isdigit())
    for text, told in (
        ("__version__ = '2.14.1'\ncuda: Optional[str] = '13.0'\nhip = None\n", "13.0"),
        ("cuda = None\n", ""), ("cuda: Optional[str] = None\n", ""), ("nothing\n", None),
    ):  # fmt: skip
        (file := tmp_path / "version.py").write_text(text)
        monkeypatch.setattr(gpus.metadata, "distribution", lambda name: SimpleNamespace(locate_file=lambda path: file))
        assert gpus.torch_cuda() == told


def test_log_outs(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, session = tmp_path / "root", "0::/user.slice/user-7.slice/session-3.scope\n"
    (root / "proc" / "self").mkdir(parents=True)
    (cgroup := root / "proc" / "self" / "cgroup").write_text(session)

    def look(user: str = "ada", lingers: str = "no") -> str:
        program(tmp_path / "bin", "loginctl", f"echo Linger={lingers}", monkeypatch)
        return " ".join(f"{each.status} {each.hint}".strip() for each in machine.log_out(View(home), root, user))

    assert look() == ""  # no logind here
    (root / "usr/lib/systemd/logind.conf.d").mkdir(parents=True)
    (root / "etc/systemd/logind.conf.d").mkdir(parents=True)
    main = root / "etc/systemd/logind.conf"
    main.write_text("[Login]\n#KillUserProcesses=yes\n")
    assert look() == "ok"
    (root / "usr/lib/systemd/logind.conf.d/50-kill.conf").write_text("[Other]\nx=1\n[Login]\nKillUserProcesses = yes\n")
    scope = "start it as `systemd-run --user --scope trainctl …`"
    assert look() == f"warning loginctl enable-linger, then {scope}"
    assert look(lingers="yes") == f"warning {scope}"  # what is in a session's scope ends, lingering or not
    assert look(user="root") == "ok"  # KillExcludeUsers is root unless it is said
    (root / "etc/systemd/logind.conf.d/60-some.conf").write_text("[Login]\nKillOnlyUsers=bob\n")
    assert look() == "ok" and look(user="bob").startswith("warning")
    (root / "etc/systemd/logind.conf.d/50-kill.conf").write_text("[Login]\nKillUserProcesses=no\n")  # hides the other
    assert look(user="bob") == "ok"
    cgroup.write_text("0::/user.slice/user-7.slice/user@7.service/app.slice/terminal.scope\n")
    assert look() == "warning loginctl enable-linger" and look(lingers="yes") == "ok"


def test_memory_files_and_threads(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> dict[str, Finding]:
        return {each.check: each for each in machine.check(View(home))}

    for name in os.environ:
        if name.startswith(("OMP_", "GOMP_", "KMP_")):
            monkeypatch.delenv(name)
    assert look()["threads"].status == "ok"
    monkeypatch.setenv("OMP_PROC_BIND", "close")
    assert look()["threads"].hint == "unset OMP_PROC_BIND"
    monkeypatch.setattr(machine.resource, "getrlimit", lambda what: (100, 4096))
    assert look()["open files"].hint == "ulimit -n 4096"
    some = SimpleNamespace(total=16 << 30, available=1 << 29)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: some)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=1 << 30, used=1 << 30))
    assert look()["memory"].status == "warning" and "swap is full" in look()["memory"].detail


FULL = """
mount -t tmpfs -o size=8m none {place} || exit 77
cp -a {source}/. {place}
exec {command} doctor --json --home {place}
"""


def test_room_for_the_queue(home: Home, tmp_path: Path) -> None:
    """In a name space of its own, where a disk of 8 MiB can be mounted."""
    for name in ("aaaa", "bbbb"):
        run = make_run(home, name)
        run.checkpoints.mkdir()
        run.checkpoint("last").write_bytes(b"x" * 2_500_000)
        (run.checkpoints / "last.safetensors.previous").hardlink_to(run.checkpoint("last"))  # counts once
    for name in ("cccc", "dddd"):
        make_run(home, name, status="queued")
    make_run(home, "eeee", status="queued", recipe_table={"model": {"arch": "resnet-18"}})
    order.pause(home)
    seen = found(home)["room for the queue"]
    assert seen.status == "ok" and "2 runs will write about 5 MiB" in seen.detail and "1 run of a kind" in seen.detail

    (place := tmp_path / "full").mkdir()
    command = shlex.join([*COMMAND])
    script = FULL.format(place=place, source=home.path, command=command)
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script], env=environment(home),
        capture_output=True, text=True, cwd=ROOT, check=False,
    ) if shutil.which("unshare") else None  # fmt: skip
    if done is None or done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("nothing can be mounted here")
    full = {each["check"]: each for each in json.loads(done.stdout)}
    assert full["disk"]["status"] == "warning" and full["room for the queue"]["status"] == "warning", done.stderr
    assert "aaaa digits-trades-s0 has ended and holds 2 MiB" in full["room for the queue"]["detail"]
    assert "trainctl rm aaaa bbbb" in full["room for the queue"]["hint"]


def test_a_read_only_home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., int] = Path.write_bytes

    def refuse(path: Path, data: bytes) -> int:
        if ".doctor." in path.name:
            raise OSError(30, "Read-only file system")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert found(home)["home"].status == "missing" and "Read-only" in found(home)["home"].detail
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    assert found(home)["temporary files"].status == "warning"


def test_runs_that_cannot_be_listed(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(home, "aaaa")

    def scandir(folder: Any, look: Any = os.scandir) -> Any:
        if folder == home.runs:
            raise PermissionError(13, "Permission denied", str(folder))
        return look(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with fake(tmp_path, "engine", str(home.runs / "aaaa")) as child:
        seen = found(home)
        assert seen["runs"].detail == f"cannot list the runs in {home.runs}: Permission denied"
        assert "let this user read" in seen["runs"].hint and "damaged runs" not in seen
        assert list(fix.mend(home)) == [] and child.poll() is None


def test_an_engine_in_a_container_has_another_home(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake(tmp_path, "engine", str(home.runs / "gone")) as child:
        assert [worker.pid for worker in workers.workers(home)] == [child.pid]
        monkeypatch.setattr(workers, "_mounts", lambda pid: pid)  # each has a name space of its own
        assert workers.workers(home) == []
