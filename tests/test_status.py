"""What a run's status says when clocks are set, machines restart, pids are given to others, and hosts fall silent."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import rundir
from engine.rundir import FINAL, STALE, RunDir, alive, me, process, replace

HOUR = 3600.0


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a process that lives until the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(program: str = sys.executable) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([program, "-c", "import time; time.sleep(60)"]))
        return started[-1]

    yield begin
    for child in started:
        child.kill()
        child.wait()


Start = Callable[..., subprocess.Popen[bytes]]


def ended(run: RunDir) -> set[str]:
    """The statuses that a run has with each exit.json that there may be; whatever else its folder says."""
    found = set()
    for status in FINAL:
        run.write_json("exit.json", {"status": status})
        found.add(run.status())
    (run.path / "exit.json").unlink()
    return found


def test_every_arrow(run: RunDir, start: Start) -> None:
    """queued -> starting -> running -> stopping -> how it ended; to lost from each in which a process works."""
    assert run.status() == "queued"
    assert ended(run) == FINAL  # cancelled, or it cannot be started

    works, dead = process(start().pid), {**me(), "ticks": 1}
    for beats in (False, True):
        run.write_json("launch.json", works)
        assert run.status() == ("running" if beats else "starting")
        assert ended(run) == FINAL
        run.write_json("launch.json", {**works, "stop_requested": 1.0})
        assert run.status() == "stopping"
        assert ended(run) == FINAL
        run.write_json("heartbeat.json" if beats else "launch.json", {**dead, "stop_requested": 1.0})
        assert run.status() == "lost"
        assert ended(run) == FINAL
        run.write_json("heartbeat.json", works)
    (run.path / "launch.json").unlink()  # started by hand
    assert run.status() == "running"

    run.write_json("exit.json", {"status": "killed"})
    run.archive_exit()
    (run.path / "heartbeat.json").unlink()
    assert run.status() == "queued"  # resumed


def test_a_run_that_ends_while_its_status_is_read_is_not_lost(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(who: dict[str, Any]) -> bool:
        run.write_json("exit.json", {"status": "done"})
        return False

    run.write_json("heartbeat.json", me())
    monkeypatch.setattr(rundir, "alive", ends)
    assert run.status() == "done"


def test_what_cannot_be_replaced_is_named(run: RunDir) -> None:
    (run.path / "env.json").mkdir()
    with pytest.raises(IsADirectoryError) as raised:
        replace(run.path / "env.json", "{}")
    assert str(raised.value) == f"[Errno {errno.EISDIR}] Is a directory: '{run.path / 'env.json'}'"
    assert [path.name for path in run.path.iterdir()] == ["env.json"]


@pytest.mark.parametrize("nonsense", [b"", b"{", b"[]", b'{"status": "running"}', b'{"status": ["done"]}', b"\xff"])
def test_an_exit_file_that_says_no_ending_ends_nothing(run: RunDir, nonsense: bytes) -> None:
    run.write_json("heartbeat.json", me())
    (run.path / "exit.json").write_bytes(nonsense)
    assert run.status() == "running"


def test_a_process_that_dies_is_lost_also_before_it_is_reaped(run: RunDir, start: Start) -> None:
    child = start()
    run.write_json("heartbeat.json", process(child.pid))
    assert run.status() == "running"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie: it still has its pid and its start
    assert psutil.pid_exists(child.pid)
    assert run.status() == "lost"
    child.wait()
    assert run.status() == "lost"


def test_a_stranger_who_has_the_pid_is_not_the_run(run: RunDir, start: Start) -> None:
    """Also not one that started in the same second, which a start time in seconds takes for the run."""
    stranger = process(start().pid)
    run.write_json("heartbeat.json", {**stranger, "ticks": stranger["ticks"] - 1})
    assert run.status() == "lost"
    run.write_json("heartbeat.json", {**me(), "pid": stranger["pid"]})
    assert run.status() == "lost"


def test_a_name_full_of_brackets_is_only_a_name(run: RunDir, start: Start, tmp_path: Path) -> None:
    """The second field of /proc/PID/stat is the program's name, which may look like all the others."""
    program = tmp_path / ") Z 1 2 3"
    program.symlink_to(sys.executable)
    child = start(str(program))
    deadline = time.monotonic() + 30
    while program.name not in Path(f"/proc/{child.pid}/stat").read_text() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert alive(process(child.pid))


def test_after_a_reboot_everything_is_lost(run: RunDir) -> None:
    run.write_json("heartbeat.json", {**me(), "boot": "00000000-0000-0000-0000-000000000000"})
    assert run.status() == "lost"
    run.write_json("heartbeat.json", {**me(), "boot": "00000000-0000-0000-0000-000000000000", "ticks": None})
    assert run.status() == "lost"


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_setting_the_clock_changes_nothing(run: RunDir, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """The time of boot that Linux tells moves with the clock, and the start times of all processes with it."""
    run.write_json("heartbeat.json", me())
    true = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: true(self) + jump)
    monkeypatch.setattr(rundir.time, "time", lambda now=time.time: now() + jump)
    assert run.status() == "running"
    run.write_json("heartbeat.json", {**me(), "ticks": me()["ticks"] + 1})
    assert run.status() == "lost"


def test_folders_from_before_the_ticks_are_told_by_the_start_time(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def written(**changes: Any) -> str:
        old = {"pid": os.getpid(), "start_time": me()["start_time"], "host": socket.gethostname()}
        run.write_json("heartbeat.json", {**old, **changes})
        return run.status()

    assert written() == "running"
    assert written(start_time=me()["start_time"] + 0.5) == "running"
    assert written(start_time=me()["start_time"] - 100) == "lost"
    # So it is where there is no /proc; what is written there is read in the same way.
    monkeypatch.setattr(rundir, "_boot", lambda: None)
    monkeypatch.setattr(rundir, "_ticks", lambda pid: None)
    assert (me()["boot"], me()["ticks"]) == (None, None)
    assert written(**me()) == "running"
    assert written(**me() | {"start_time": 1.0}) == "lost"


ABSURD = [
    {"pid": 10**30}, {"pid": -1}, {"pid": 0}, {"pid": 1.5}, {"pid": "1"}, {"pid": None}, {"pid": [1]}, {"ticks": -1},
    {"ticks": 10**400}, {"ticks": "x", "start_time": 1.0}, {"boot": ""}, {"boot": 7, "start_time": 10**400},
    {"ticks": None, "start_time": float("nan")}, {"ticks": None, "start_time": float("inf")},
    {"ticks": None, "start_time": "now"}, {"ticks": None, "start_time": None}, {"boot": {"a": 1}, "start_time": -1e300},
]  # fmt: skip


@pytest.mark.parametrize("absurd", ABSURD)
def test_nonsense_is_no_process(run: RunDir, absurd: dict[str, Any]) -> None:
    run.write_json("heartbeat.json", {**me(), **absurd})
    assert run.status() == "lost"
    assert not alive({**me(), **absurd})


def test_a_process_of_this_host_is_not_looked_for_among_others(start: Start) -> None:
    child = process(start().pid)
    assert alive(child)
    assert not alive({**child, "host": "elsewhere"})
    assert not alive({})
    assert not alive(process(2**22 + 1))


# --- runs of other hosts ----------------------------------------------------------------------------------------


def elsewhere(run: RunDir, age: float, *names: str) -> None:
    """Let another host's process have written `names` `age` seconds ago, by the clock of the file system."""
    for name in names:
        # All of it describes a living process here, which must not matter.
        run.write_json(name, {**me(), "host": "elsewhere"})
        os.utime(run.path / name, (time.time() - age,) * 2)


@pytest.mark.parametrize("jump", [-HOUR, 0.0, HOUR])
@pytest.mark.parametrize(
    ("age", "status"),
    [(0, "running"), (120, "running"), (STALE - 60, "running"), (STALE + 60, "lost"), (2 * HOUR, "lost")],
)
def test_another_host_is_judged_by_the_clock_of_the_file_system(
    run: RunDir, monkeypatch: pytest.MonkeyPatch, jump: float, age: float, status: str
) -> None:
    elsewhere(run, age, "launch.json", "heartbeat.json")
    before = sorted(run.path.iterdir())
    monkeypatch.setattr(rundir.time, "time", lambda now=time.time: now() + jump)
    assert run.status() == status
    assert sorted(run.path.iterdir()) == before


def test_on_another_host_too_the_heartbeat_counts_and_before_it_the_start(run: RunDir) -> None:
    elsewhere(run, 60, "launch.json")
    assert run.status() == "starting"
    elsewhere(run, STALE + 60, "launch.json")
    assert run.status() == "lost"
    elsewhere(run, 0, "heartbeat.json")
    assert run.status() == "running"
    run.write_json("launch.json", {**me(), "host": "elsewhere", "stop_requested": 1.0})
    assert run.status() == "stopping"
    run.write_json("exit.json", {"status": "killed"})
    assert run.status() == "killed"


def test_a_young_heartbeat_costs_no_write(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere(run, 5, "heartbeat.json")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: pytest.fail("the file system was asked"))
    assert run.status() == "running"


def test_where_nothing_can_be_written_a_run_of_another_host_is_taken_to_run(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    elsewhere(run, 2 * HOUR, "heartbeat.json")
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert run.status() == "running"


def test_a_copy_of_a_folder_is_not_at_work_and_a_moved_one_is(tmp_path: Path) -> None:
    """A copied heartbeat names a living process, which works elsewhere: stopping the copy must not stop it."""
    run, copy, moved, link = (RunDir(tmp_path / name) for name in ("run", "copy", "moved", "link"))
    run.path.mkdir()
    run.write_json("heartbeat.json", {**me(), "folder": str(run.path)})
    link.path.symlink_to(run.path)
    with run.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        shutil.copytree(run.path, copy.path)
        assert (run.status(), link.status(), copy.status()) == ("running", "running", "lost")
        assert alive(run.process()) and alive(link.process()) and not alive(copy.process())
        run.path.rename(moved.path)
        assert moved.status() == "running"
    assert moved.status() == "lost"
