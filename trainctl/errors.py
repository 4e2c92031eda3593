"""The one family of errors: each has a message, a hint and an exit code. Only cli/ and tui/ show them."""

from __future__ import annotations

import errno

DONE, RUN_FAILED, USAGE, MACHINE, INTERRUPTED = 0, 1, 2, 3, 130


class TrainctlError(Exception):
    """Something a person can mend. `hint` says what to do next; `code` is the exit code."""

    code = RUN_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(TrainctlError):
    """Wrong arguments, recipe or selector; nothing was started."""

    code = USAGE


class MachineError(TrainctlError):
    """The machine lacks something: a folder that cannot be written, a device, a data set."""

    code = MACHINE


REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space, then try again",
    errno.EDQUOT: "your quota of the disk is used up: free some space, then try again",
    errno.EROFS: "it is mounted read-only: mount it for writing, or set TRAINCTL_HOME or --home to another folder",
    errno.EACCES: "you may not write there: have its owner allow it, or set TRAINCTL_HOME or --home to another folder",
    errno.EPERM: "you may not change it: have its owner do so",
    errno.EMFILE: "too many files are open in this process: raise the limit, as with `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine: end some programs, or have fs.file-max raised",
}


def refused(what: str, error: OSError) -> MachineError:
    """The error for `what` (as "cannot write /a/file") that the system refused, with its reason and the remedy."""
    return MachineError(f"{what}: {error.strerror or error}", REMEDIES.get(error.errno or 0, ""))


class Stale(UserWarning):
    """What is shown may be older than the run folders, and why."""
