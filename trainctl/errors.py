"""The one family of errors: each has a message, a hint and an exit code. Only cli/ and tui/ show them."""

from __future__ import annotations

import errno

from engine.remedies import remedy_of

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


def refused(what: str, error: OSError) -> MachineError:
    """The error for `what` (as "cannot write /a/file") that the system refused, with its reason and the remedy."""
    elsewhere = (
        "; or set TRAINCTL_HOME or --home to another folder" if error.errno in (errno.EROFS, errno.EACCES) else ""
    )
    return MachineError(f"{what}: {error.strerror or error}", remedy_of(error) + elsewhere)


class Stale(UserWarning):
    """What is shown may be older than the run folders, and why."""
