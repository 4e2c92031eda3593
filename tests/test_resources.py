"""What a run does when the machine refuses: no room, no right, no descriptor, no memory, no GPU, no time.

Each time it ends with a status that names the path and the remedy, keeps its last good checkpoint, and once that is
mended goes on to exactly what an undisturbed run comes to.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, working
from safetensors.torch import load_file

from engine import checkpoint, events, lifecycle, worker
from engine.evaluate import report
from engine.rundir import RESERVE, STOP_SIGNALS, RunDir
from engine.train import Trainer
from trainctl.launch import processes, scheduler

Make = Callable[..., RunDir]
RECIPE: dict[str, Any] = {
    "optim__batch_size": 8, "run__log_every": 1, "data__train_examples": 120, "eval__attacks": [],
    "eval__topology": False, "eval__best_by": "natural",
}  # fmt: skip


def engine(run: RunDir) -> int:
    """Carry out a run within this process, from its start to exit.json; the exit code."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    try:
        return worker.train(run.path)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def came_to(run: RunDir) -> tuple[object, ...]:
    """Everything a run leaves behind, times apart."""
    log = [event for _, event in events.read(run.events.read_bytes())]
    timeless = [{key: value for key, value in event.items() if key not in events.TIMES} for event in log]
    tensors = [
        {name: tensor.numpy().tobytes() for name, tensor in load_file(run.checkpoint(which)).items()}
        for which in ("best", "last")
    ]
    return tensors, timeless, {file.name: file.read_text() for file in run.evaluations.glob("*.csv")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """What an undisturbed run comes to."""
    import tomli_w
    from conftest import TINY, merged

    run = RunDir(tmp_path_factory.mktemp("whole"))
    run.recipe.write_text(tomli_w.dumps(merged(TINY, {key.replace("__", "."): RECIPE[key] for key in RECIPE})))
    assert engine(run) == 0
    return came_to(run)


# --- ways to refuse ---------------------------------------------------------------------------------------------


def mounted(folder: Path, options: str) -> bool:
    """Mount a memory file system over `folder`, as root or by a sudo that asks for no password."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.getuid():
        command = ["sudo", "-n", *command]
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        return False


def unmount(folder: Path) -> None:
    command = ["umount", "-l", str(folder)]  # lazily: a log that was open when its run failed is open in this process
    subprocess.run(["sudo", "-n", *command] if os.getuid() else command, check=True)


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of 2 MB at `folder`, or False where none may be mounted."""
    folder.mkdir()
    possible = mounted(folder, f"size=2m,mode=700,uid={os.getuid()},gid={os.getgid()}")
    try:
        yield possible
    finally:
        if possible:
            unmount(folder)


@contextmanager
def full(run: RunDir) -> Iterator[None]:
    """Somebody else fills the disk to its last byte."""
    filler = run.path.parent / "filler"
    with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 12))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def limited(run: RunDir) -> Iterator[None]:
    """Where no disk can be filled: files may not become larger than events.jsonl is about to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (run.events.stat().st_size + 500, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def no_right(run: RunDir) -> Iterator[None]:
    """The folder of checkpoints is somebody else's by now."""
    if os.getuid():
        run.checkpoints.chmod(0o500)
    else:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(os.getuid())
        run.checkpoints.chmod(0o755)


@contextmanager
def read_only(run: RunDir) -> Iterator[None]:
    """Another file system lies over the checkpoints, and takes nothing."""
    assert mounted(run.checkpoints, "ro")
    try:
        yield
    finally:
        unmount(run.checkpoints)


@contextmanager
def no_descriptor(run: RunDir) -> Iterator[None]:
    """All file descriptors are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 8, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


Trouble = Callable[[RunDir], AbstractContextManager[None]]


def at(moment: str, happen: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `happen` in the second epoch of training before an event or the checkpoint, or in the evaluation."""
    look, save, write = Trainer._look, checkpoint.save, report.write
    seen = {"epochs": 0, "happened": 0}

    def once() -> None:
        seen["happened"] += 1
        if seen["happened"] == 1:
            happen()

    def looking(self: Trainer, *rest: Any) -> None:
        if moment == "metrics" and self.progress.epoch == 2:
            once()
        look(self, *rest)

    def saving(path: Path, *rest: Any, **more: Any) -> None:
        seen["epochs"] += path.stem == "last"
        if moment == "checkpoint" and seen["epochs"] == 2:
            once()
        save(path, *rest, **more)

    def writing(*rest: Any) -> None:
        if moment == "evaluation":
            once()
        write(*rest)

    monkeypatch.setattr(Trainer, "_look", looking)
    monkeypatch.setattr(checkpoint, "save", saving)
    monkeypatch.setattr(report, "write", writing)


def disturbed(
    run: RunDir, moment: str, trouble: Trouble, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> tuple[str, str]:
    """Carry out a run that meets `trouble` at a moment; what is said of it in exit.json, and what was printed."""
    with ExitStack() as until_it_ended:
        at(moment, lambda: until_it_ended.enter_context(trouble(run)), monkeypatch)
        code = engine(run)
    monkeypatch.undo()
    printed = "".join(capfd.readouterr())
    assert "Traceback" not in printed
    assert code == 3
    _, state = checkpoint.load(run.checkpoint("last"))
    assert state["progress"]["epoch"] == (3 if moment == "evaluation" else 2)
    if run.json("exit.json"):
        assert not list(run.path.glob("**/.*"))  # neither the reserve nor half a file is left
    return json.dumps(run.json("exit.json"), ensure_ascii=False), printed


@pytest.mark.parametrize(
    ("moment", "file"),
    [("metrics", "events.jsonl"), ("checkpoint", "checkpoints/last.safetensors"), ("evaluation", "eval/best-natural")],
)
def test_a_full_disk(
    make_folder: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    whole: tuple[object, ...], moment: str, file: str,
) -> None:  # fmt: skip
    with small_disk(tmp_path / "disk") as possible:
        run = make_folder("disk/run" if possible else "run", **RECIPE)
        said, _ = disturbed(run, moment, full if possible else limited, monkeypatch, capfd)
        if not possible and moment == "evaluation":
            file = "events.jsonl"  # which is the larger file
        assert run.status() == "failed"
        assert f"{run.path / file}" in said and "trainctl resume" in said
        assert ("No space left on device" in said and "trainctl rm" in said) if possible else "ulimit -f" in said
        assert engine(run) == 0
        assert came_to(run) == whole


@pytest.mark.parametrize(
    ("trouble", "words", "remedy"),
    [(no_right, "Permission denied", "ls -ld"), (read_only, "Read-only file system", "mounted writable"),
     (no_descriptor, "Too many open files", "ulimit -n")],
)  # fmt: skip
def test_a_file_that_is_refused(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], whole: tuple[object, ...],
    trouble: Trouble, words: str, remedy: str,
) -> None:  # fmt: skip
    run = make_folder(**RECIPE)
    if trouble is read_only:
        with small_disk(run.path.parent / "try") as possible:
            if not possible:
                pytest.skip("nothing may be mounted here")
    said, printed = disturbed(run, "checkpoint", trouble, monkeypatch, capfd)
    if trouble is no_right and os.getuid() == 0:  # then the whole folder is somebody else's, and stderr must do
        assert said == "{}" and "exit.json cannot be written" in printed
        said = printed
    else:
        assert run.status() == "failed"
    for part in (str(run.checkpoints), words, remedy, "trainctl resume"):
        assert part in said
    assert engine(run) == 0
    assert came_to(run) == whole


def test_a_real_engine_on_a_full_disk(make_folder: Make, tmp_path: Path) -> None:
    """With its output on the same disk, as the launcher starts it."""
    with small_disk(tmp_path / "disk") as possible:
        if not possible:
            pytest.skip("nothing may be mounted here")
        run = make_folder("disk/run", **RECIPE, schedule__epochs=500)
        with open(run.log, "wb") as log:
            child = subprocess.Popen([sys.executable, "-m", "engine", run.path], cwd=ROOT, stdout=log, stderr=log)
        try:
            while child.poll() is None and not run.checkpoint("last").exists():
                time.sleep(0.01)
            with full(run):
                assert child.wait(60) == 3
                ended = run.json("exit.json")
                assert (ended["status"], ended["code"]) == ("failed", 3)
                assert "No space left on device" in ended["reason"] and str(run.path) in ended["reason"]
                assert b"Traceback" not in run.log.read_bytes()
                assert list(events.read(run.events.read_bytes()))[-1][1]["status"] == "failed"
                checkpoint.load(run.checkpoint("last"))
        finally:
            child.kill()
            child.wait()


def test_a_disk_that_fills_while_the_engine_starts(make_folder: Make, tmp_path: Path) -> None:
    """The launcher has kept room, for the engine and for whoever says in its stead how it ended."""
    with small_disk(tmp_path / "disk") as possible:
        if not possible:
            pytest.skip("nothing may be mounted here")
        early, late = (make_folder(f"disk/{name}", **RECIPE) for name in ("early", "late"))
        for run in (early, late):
            child = processes.start(run, engine=("sh", "-c", "exec sleep 60"))
            assert child is not None and (run.path / ".reserve").stat().st_size == RESERVE
            with full(run):
                child.kill()
                child.wait()
                if run is early:
                    scheduler._record(run, child)
                else:
                    assert engine(run) == 3
                assert run.status() == ("killed" if run is early else "failed")
                assert run.json("exit.json")["reason"] and not (run.path / ".reserve").exists()


def test_a_folder_that_cannot_be_taken(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from engine.__main__ import main

    run = make_folder()
    run.lock.mkdir()
    for name in ("CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_ORDER", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.delenv("CUDA_DEVICE_ORDER")
    monkeypatch.setattr(sys, "argv", ["engine", str(run.path)])
    assert main() == 3
    assert f"error: {run.lock}: Is a directory" in capfd.readouterr().err
    assert run.status() == "queued"
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # settled before anything else


def test_the_last_beat_is_written_whole(make_folder: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends with the process: a beat in the middle of its write left a temporary file."""
    begun, write = threading.Event(), RunDir.write_json

    def slowly(run: RunDir, name: str, content: Any) -> None:
        if threading.current_thread().name == "heartbeat":
            begun.set()
            time.sleep(0.3)
            done.append(name)
        write(run, name, content)

    done: list[str] = []
    monkeypatch.setattr(lifecycle, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(RunDir, "write_json", slowly)
    with lifecycle.Lifecycle(make_folder()):
        assert begun.wait(60)
    assert done


def test_what_is_kept_for_others_ends_no_run(make_folder: Make) -> None:
    run = make_folder()
    for name in ("heartbeat.json", "attempts.jsonl", ".reserve"):
        (run.path / name / "in the way").mkdir(parents=True)
    with working(run) as life:
        life.began(None)
        assert life.end("done", 0) == 0
    assert run.status() == "done"


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_run_stops_at_its_time_limit(
    make_folder: Make, monkeypatch: pytest.MonkeyPatch, whole: tuple[object, ...], stage: str
) -> None:
    """An hour passes as soon as the stage has begun; behind the limit a step is taken and a checkpoint written."""
    run = make_folder(**RECIPE, run__max_hours=1.0)

    def monotonic() -> float:
        begun = run.events.exists() and f'"stage": "{stage}"'.encode() in run.events.read_bytes()
        return 10.0 + 3600.0 * begun

    with monkeypatch.context() as patch:
        patch.setattr(lifecycle, "time", SimpleNamespace(time=lambda: 5.0, monotonic=monotonic))
        assert engine(run) == lifecycle.TIMED_OUT == 124
    ended = run.json("exit.json")
    assert (ended["status"], ended["code"], ended["signal"]) == ("timeout", 124, None)
    assert "run.max_hours = 1" in ended["reason"] and "trainctl resume" in ended["hint"]
    _, state = checkpoint.load(run.checkpoint("last"))
    assert state["progress"]["step"] == (1 if stage == "train" else 30)
    assert engine(run) == 0
    assert came_to(run) == whole
