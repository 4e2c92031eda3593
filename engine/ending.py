"""How a run ends: what an error means for its status, for the exit code, and what people can do about it."""

from __future__ import annotations

import errno
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.checkpoint import CheckpointError
from engine.data.base import DataError
from engine.evaluate.run import Stopped
from engine.lifecycle import TIMED_OUT, Lifecycle
from engine.machine import MachineLacks
from engine.recipe import InvalidRecipe
from engine.remedies import remedy_of
from engine.rundir import STOP_SIGNALS
from engine.train import Diverged, Interrupted

DONE, FAILED, USAGE, LACKS = 0, 1, 2, 3

GOES_ON = "`trainctl resume` goes on from the checkpoint"
OOM_HINT = (
    "lower optim.batch_size, run.micro_batch or eval.batch_size, choose a smaller model.arch, or on a GPU set "
    "run.fold = false: attacks then keep no memory of their own"
)
GPU_HINT = (
    "`nvidia-smi` says whether the GPU is still there, `dmesg | grep Xid` what it reported; once it works again, or on "
    "another one, `trainctl resume` goes on from the last checkpoint"
)

_GPU_FAILED = (
    "CUDA error", "CUDA driver", "CUDNN", "cuDNN error", "CUBLAS", "NCCL", "No CUDA GPUs", "unable to find an engine",
)  # fmt: skip
_NO_MEMORY = (
    "allocate memory", "bad_alloc", "CUDA error: out of memory", "STATUS_ALLOC_FAILED",
    "FIND was unable to find an engine",  # what training is told where no kernel that cuDNN tries has room to work
)  # fmt: skip


@dataclass(frozen=True)
class Ending:
    """How a process ended: the status of its run, its exit code, and what to tell people."""

    status: str
    code: int
    reason: str = ""
    hint: str = ""


def ending(error: BaseException, life: Lifecycle) -> Ending:
    """What `error` means. A traceback is printed for what nobody foresaw, and for nothing else."""
    if isinstance(error, Interrupted | Stopped):
        return _stopped(life)
    if isinstance(error, Diverged):
        hint = "lower optim.lr or attack.eps, or look at the last step events; checkpoints/last is from before"
        return Ending("diverged", FAILED, str(error), hint)
    cause = _cause(error)
    reason = refusal(cause, life.rundir.path) if isinstance(cause, OSError) and cause is error else _first_line(error)
    if _out_of_memory(cause):
        return Ending("oom", FAILED, reason, OOM_HINT)
    if remedy := remedy_of(cause):
        return Ending("failed", LACKS, reason, remedy + ("; then `trainctl resume` goes on" if life.record else ""))
    if _gpu_failed(error):
        return Ending("failed", LACKS, f"the GPU failed: {_first_line(error)}", GPU_HINT)
    if isinstance(error, MachineLacks | DataError):
        return Ending("failed", LACKS, str(error), error.hint)
    if isinstance(error, CheckpointError):
        return Ending("failed", FAILED, str(error), error.hint)
    if isinstance(error, InvalidRecipe):
        return Ending("failed", FAILED, str(error))
    with suppress(OSError):  # stdout.log may be on a full disk
        traceback.print_exception(error)
    hint = "the traceback is in stdout.log"
    if isinstance(error, ValueError):  # settings that do not fit the images or the network, refused by name
        return Ending("failed", FAILED, str(error), hint)
    return Ending("failed", FAILED, f"{type(error).__name__}: {_first_line(error)}", hint)


def _stopped(life: Lifecycle) -> Ending:
    if life.timed_out:
        return Ending("timeout", TIMED_OUT, f"it reached run.max_hours = {life.max_hours:g}", GOES_ON)
    number = life.stop_signal or signal.SIGTERM
    return Ending(STOP_SIGNALS[number], 128 + number, f"stopped by {number.name}", GOES_ON)


def _cause(error: BaseException) -> BaseException:
    """What stands behind an error of ours that says that a file could not be read or stored."""
    wrapped = isinstance(error, DataError | CheckpointError) and isinstance(error.__context__, OSError)
    return error.__context__ if wrapped and error.__context__ is not None else error


def refusal(error: OSError, folder: Path) -> str:
    """What the system refused, in its words; something in `folder` unless the error names a file."""
    where = error.filename if isinstance(error.filename, str | Path) else folder
    return f"{where}: {error.strerror or error}"


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _gpu_failed(error: BaseException) -> bool:
    """True if a GPU, its driver or its libraries failed, which says nothing against the run."""
    if "device-side assert" in str(error):  # a mistake in the program
        return False
    accelerator = getattr(torch, "AcceleratorError", ())  # since torch 2.8; a RuntimeError before
    return isinstance(error, accelerator) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _GPU_FAILED)
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]
