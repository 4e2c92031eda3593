"""What errors and signals mean for the status of a run, its exit code, and what people are told."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

import pytest
import torch
from conftest import working

from engine.data.base import DataError
from engine.ending import ending
from engine.remedies import REMEDIES
from engine.rundir import RunDir
from engine.train import Interrupted

Make = Callable[..., RunDir]

REMEDY = {
    errno.ENOSPC: "trainctl rm", errno.EDQUOT: "quota", errno.EFBIG: "ulimit -f", errno.EROFS: "read-only",
    errno.EACCES: "ls -ld", errno.EPERM: "ls -ld", errno.EMFILE: "ulimit -n", errno.ENFILE: "fs.file-max",
    errno.EIO: "dmesg", errno.ESTALE: "mounted again",
}  # fmt: skip


def test_each_refusal_of_the_system_has_a_remedy(make_folder: Make, capfd: pytest.CaptureFixture[str]) -> None:
    assert REMEDIES.keys() == REMEDY.keys()
    with working(make_folder()) as life:
        for number, remedy in REMEDY.items():
            ended = ending(OSError(number, os.strerror(number), "/a/file"), life)
            assert (ended.status, ended.code) == ("failed", 3)
            assert ended.reason == f"/a/file: {os.strerror(number)}"
            assert remedy in ended.hint and "trainctl resume" in ended.hint
            assert str(life.rundir.path) in ending(OSError(number, "no name"), life).reason
        ended = ending(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM), "/a/file"), life)
        assert (ended.status, ended.code) == ("oom", 1)
        assert "batch_size" in ended.hint and "run.fold = false" in ended.hint
        try:
            try:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/set")
            except OSError as error:
                raise DataError(f"digits: {error}", "fetch it by hand") from None
        except DataError as error:
            assert "trainctl rm" in ending(error, life).hint
        assert capfd.readouterr().err == ""
        assert ending(FileNotFoundError(errno.ENOENT, "No such file", "/a/file"), life).code == 1
        assert "No such file" in capfd.readouterr().err  # nobody foresaw it, so all is told


LAUNCH_FAILURE = "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError(LAUNCH_FAILURE), "failed", 3),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"), "failed", 3),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"), "failed", 3),
        (RuntimeError("NCCL error in: ProcessGroupNCCL.cpp, unhandled system error"), "failed", 3),
        (RuntimeError("No CUDA GPUs are available"), "failed", 3),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "oom", 1),
        (RuntimeError("CUDA error: out of memory"), "oom", 1),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), "oom", 1),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), "oom", 1),
        (RuntimeError("GET was unable to find an engine to execute this computation"), "failed", 3),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate"), "oom", 1),
        (RuntimeError("std::bad_alloc"), "oom", 1),
        (MemoryError(), "oom", 1),
        (RuntimeError("CUDA error: device-side assert triggered"), "failed", 1),
        (RuntimeError("Expected all tensors to be on the same device, cuda:0 and cpu"), "failed", 1),
    ],
)
def test_a_gpu_that_failed_is_no_mistake_of_the_run(
    make_folder: Make, capfd: pytest.CaptureFixture[str], error: Exception, status: str, code: int
) -> None:
    accelerator = getattr(torch, "AcceleratorError", RuntimeError)
    with working(make_folder()) as life:
        for each in (error, accelerator(str(error))) if "CUDA error" in str(error) else (error,):
            ended = ending(each, life)
            assert (ended.status, ended.code) == (status, code)
            assert ("nvidia-smi" in ended.hint and "Xid" in ended.hint) == (code == 3)
            assert bool(capfd.readouterr().err) == ((status, code) == ("failed", 1))


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGUSR1, "preempted"),
        (signal.SIGUSR2, "timeout"),
        (signal.SIGXCPU, "timeout"),
        (signal.SIGHUP, "killed"),
    ],
)
def test_the_first_signal_says_why(make_folder: Make, number: signal.Signals, status: str) -> None:
    """Batch systems warn with one, and then end the process with SIGTERM, also while it writes its checkpoint."""
    with working(make_folder()) as life:
        assert not life.should_stop()
        for each in (number, signal.SIGTERM):
            os.kill(os.getpid(), each)
            assert life.should_stop()
        ended = ending(Interrupted(), life)
        life.end(ended.status, ended.code, ended.reason, ended.hint)
    found = life.rundir.json("exit.json")
    assert (found["status"], found["code"], found["signal"]) == (status, 128 + number, number.name)
