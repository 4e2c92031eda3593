"""What waits and why, and how loaded the machine is; without a screen."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dashboard import made
from fake_trainctl import ENGINE, queue, until
from folders import make_run

from engine import rundir
from engine.rundir import RunDir, me
from trainctl.home import Home
from trainctl.launch import scheduler, slots
from trainctl.launch.gpus import Gpu, Gpus, Nvml
from trainctl.launch.machine import Meter
from trainctl.launch.waiting import Held
from trainctl.registry import ingest
from trainctl.tui.feed import machine as feed
from trainctl.tui.feed.machine import SPAN, STEP, MachineFeed, Recent, Sampler


def test_somebody_who_asks_for_a_scheduler_keeps_none_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path).create()
    scheduler.alive(home)
    answers = iter([False, True])  # the lock is held for the moment in which somebody else asks `alive`
    monkeypatch.setattr(scheduler, "_free", lambda home: next(answers))
    started: list[Any] = []
    monkeypatch.setattr(scheduler, "_started", started)
    (home.path / "scheduler.lock").touch()
    scheduler.ensure(home, ENGINE)
    assert len(started) == 1
    assert started[0].wait(30) == 0


class Error(Exception):
    """As NVMLError."""

    def __init__(self, value: int) -> None:
        super().__init__({3: "Not Supported", 4: "Insufficient Permissions", 15: "GPU is lost"}.get(value, "?"))
        self.value = value


class Library:
    """As the module pynvml, of a machine with the GPUs `devices`; what a device lacks is not supported."""

    NVMLError = Error
    NVML_ERROR_LIBRARY_NOT_FOUND, NVML_ERROR_DRIVER_NOT_LOADED = 12, 9
    NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED = 15, 16
    NVML_TEMPERATURE_GPU = 0

    def __init__(self, devices: list[dict[str, Any]], broken: int = 0) -> None:
        self.devices, self.broken, self.opened = devices, broken, 0

    def nvmlInit(self) -> None:
        self.opened += 1
        if self.broken:
            raise Error(self.broken)

    def nvmlDeviceGetCount(self) -> int:
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, number: int) -> dict[str, Any]:
        return self.devices[number]

    def __getattr__(self, name: str) -> Any:
        def answer(device: dict[str, Any], *more: int) -> Any:
            if "lost" in device:
                raise Error(15)
            if name not in device:
                raise Error(3)
            return device[name]

        return answer


WHOLE = {
    "nvmlDeviceGetName": b"NVIDIA A100", "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=67, memory=20),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=10 << 30, total=80 << 30), "nvmlDeviceGetTemperature": 54,
    "nvmlDeviceGetPowerUsage": 210_500, "nvmlDeviceGetMigMode": (0, 0),
    "nvmlDeviceGetComputeRunningProcesses": [
        SimpleNamespace(pid=7, usedGpuMemory=1 << 30), SimpleNamespace(pid=8, usedGpuMemory=None),
    ],
}  # fmt: skip
DIVIDED = {
    "nvmlDeviceGetName": "NVIDIA H100", "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=1 << 30, total=80 << 30),
    "nvmlDeviceGetMigMode": (1, 1),
}  # fmt: skip


def test_gpus_tell_what_they_can() -> None:
    library = Library([WHOLE, DIVIDED, {"lost": True}])
    nvml = Nvml(library)
    whole, divided, lost = nvml.look().found
    assert whole == Gpu("0", "NVIDIA A100", 67.0, 10 << 30, 80 << 30, 54, 210.5, ((7, 1 << 30), (8, None)), "")
    assert (divided.load, divided.power, divided.memory_used) == (None, None, 1 << 30)
    assert "MIG" in divided.remark
    assert lost == Gpu("2", remark="lost: reset it or start the machine anew")
    assert nvml.look().memory_of(frozenset({7, 8})) == 1 << 30
    assert nvml.look().memory_of(frozenset({9})) is None
    assert library.opened == 1


@pytest.mark.parametrize(("value", "said"), [(12, "no NVIDIA driver"), (9, "no NVIDIA driver"), (4, "Permissions")])
def test_why_there_is_no_gpu_is_said(value: int, said: str) -> None:
    library = Library([WHOLE], broken=value)
    nvml = Nvml(library)
    for _ in range(2):
        found = nvml.look()
        assert found.found == () and said in found.why
    assert library.opened == 1  # it is not tried each second


def test_this_machine_is_measured(tmp_path: Path) -> None:
    meter = Meter(Home(tmp_path), Nvml(Library([])))
    first = meter.machine()
    assert first.busy is None
    time.sleep(0.2)
    found = meter.machine()
    assert found.busy is not None and 0.0 <= found.busy <= found.cores == slots.cores()
    assert 0 < found.memory_used < found.memory_total
    assert 0 < found.disk_free < found.disk_total
    assert found.gpus == Gpus((), "no GPU")
    assert Meter(Home(tmp_path / "not there"), Nvml(Library([]))).machine().disk_total == 0


PROGRAM = """
import subprocess, sys, threading, time
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print(child.pid, flush=True)
sys.stdin.read()
child.kill()
"""


@contextmanager
def busy_run(path: Path) -> Iterator[tuple[RunDir, int, int]]:
    """A run whose process has two threads, and a child that keeps a core busy; with both pids."""
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        run = RunDir(path)
        run.path.mkdir()
        run.write_json("launch.json", rundir.process(process.pid))
        yield run, process.pid, child
    finally:
        process.communicate()


def test_a_run_is_measured_with_all_that_it_started(tmp_path: Path) -> None:
    with busy_run(tmp_path / "busy") as (run, pid, child):
        library = Library([{**WHOLE, "nvmlDeviceGetComputeRunningProcesses": [
            SimpleNamespace(pid=child, usedGpuMemory=5), SimpleNamespace(pid=1, usedGpuMemory=7)]}])  # fmt: skip
        meter = Meter(Home(tmp_path), Nvml(library))
        meter.machine()
        first = meter.process(run)
        assert first is not None
        assert (first.pid, first.cpu, first.processes, first.threads, first.gpu_memory) == (pid, None, 2, 3, 5)
        assert 5 << 20 < first.memory < 1 << 30
        time.sleep(0.5)
        found = meter.process(run)
        assert found is not None and found.cpu is not None and 5 < found.cpu < 130
        written = run.json("launch.json")
        run.write_json("heartbeat.json", {**written, "host": "elsewhere"})
        assert meter.process(run) is None
        run.write_json("heartbeat.json", {**written, "ticks": 1})  # the pid is another's by now
        assert meter.process(run) is None
    (run.path / "heartbeat.json").unlink()
    assert meter.process(run) is None  # it has ended


def test_the_last_minutes_stand_on_fixed_steps() -> None:
    recent = Recent()
    for second in range(1000, 1010):
        recent.add(float(second), "cpu", float(second))
    recent.add(1010.0, "cpu", None)
    values = recent.values(1009.0, "cpu")
    assert len(values) == SPAN / STEP
    assert values[-5:] == (1001.0, 1003.0, 1005.0, 1007.0, 1009.0)  # the newest of each two seconds
    assert values[-6] is None
    # Where nobody looked there is a gap, after a value has stood for some seconds.
    recent.add(1050.0, "cpu", 1.0)
    later = recent.values(1051.0, "cpu")
    assert later[-1] == 1.0 and later[-2] is None and 1009.0 in later
    recent.forget(1050.0 + SPAN)
    assert set(recent.values(1051.0, "cpu")) == {None}


class Counted(Meter):
    """Counts its looks."""

    looks = 0

    def machine(self) -> Any:
        self.looks += 1
        return super().machine()


def test_what_was_seen_is_kept_and_not_measured_too_often(tmp_path: Path) -> None:
    now = [100.0]
    meter = Counted(Home(tmp_path), Nvml(Library([WHOLE])))
    sampler = Sampler(meter, lambda: now[0])
    sampler.machine()
    sampler.machine()
    assert meter.looks == 1
    now[0] += 1.0
    run = RunDir(tmp_path / "self")
    run.path.mkdir()
    run.write_json("heartbeat.json", me())
    view = sampler.system(run)
    assert meter.looks == 2
    assert view.recent["gpu 0"][-1] == 67.0 and view.recent["gpu 0 memory"][-1] == 10 << 30
    assert view.process is not None and view.recent["run memory"][-1] == view.process.memory
    assert view.absent == ""
    assert feed.sampler(Home(tmp_path)) is feed.sampler(Home(tmp_path))


def test_without_a_process_it_is_said_why(tmp_path: Path) -> None:
    home = Home(tmp_path).create()
    sampler = Sampler(Meter(home, Nvml(Library([]))))
    done, waits, away = (
        make_run(home, name, status=status) for name, status in (("d", "oom"), ("w", "queued"), ("a", "running"))
    )
    done.write_json("exit.json", {"status": "oom", "peak_memory_mb": 2048.0})
    away.write_json("heartbeat.json", {**me(), "host": "else\x1bwhere"})
    assert "It has ended (oom)" in sampler.system(done).absent
    assert "At most it took 2.00 GiB" in sampler.system(done).absent
    assert "waits in the queue" in sampler.system(waits).absent
    assert r"works on else\x1bwhere" in sampler.system(away).absent


def look(home: Home) -> None:
    ingest.refresh(home)


def test_the_queue_is_told_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "gpus", list)
    monkeypatch.setattr(slots, "cores", lambda: 2)
    home = made(tmp_path / "home")
    make_run(home, "early", status="queued", created=1025.0, group="e", pair="e", recipe_table={"run": {"threads": 2}})
    away = make_run(home, "away", status="running", created=1021.0, group="f", pair="f")
    away.write_json("heartbeat.json", {**me(), "host": "elsewhere"})
    asker = MachineFeed(home, lambda: look(home))
    view = asker.view()
    assert [(each.run.id, each.host, each.held) for each in view.working] == [
        ("atwork", "", Held("atwork", 0.5, "")), ("away", "elsewhere", None),
    ]  # fmt: skip
    at_work = view.working[0]
    assert (at_work.progress.epoch, at_work.progress.epochs, at_work.progress.eta()) == (8, 9, 2.0)
    assert at_work.process is not None and at_work.process.memory > 1 << 20
    assert [(each.run.id, each.why) for each in view.waiting] == [
        ("early", "needs 2 of 2 cores; 1 taken by [red]me[/red]-s2"),
        ("waiting", "behind digits-trades-s0, which waits for the same"),
    ]  # fmt: skip
    assert (view.queued, view.served) == (2, False)
    home.run("atwork").write_json("exit.json", {"status": "done"})
    assert [each.why for each in asker.view().waiting] == [
        feed.UNSERVED,
        "needs 1 of 2 cores; 2 taken by digits-trades-s0",
    ]


def test_a_scheduler_is_started_for_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home").create()
    monkeypatch.setattr(slots, "gpus", list)
    [run] = queue(home, "quick", share=1.0)
    real = scheduler.ensure
    monkeypatch.setattr(scheduler, "ensure", lambda home: real(home, ENGINE))
    assert "was started" in feed.serve(home)
    until(lambda: run.status() == "done")
    until(lambda: not scheduler.alive(home))
