"""Other programs are asked with a time limit, also one that the kernel cannot kill."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

PATIENCE = 5.0  # seconds
DYING = 0.5


@dataclass(frozen=True)
class Answer:
    """What a program printed, and its exit code; `hung`: it gave none in time."""

    code: int
    text: str
    hung: bool = False

    @property
    def good(self) -> bool:
        """True if it ended by itself, without an error."""
        return not self.hung and not self.code


def ask(*command: str, patience: float = PATIENCE) -> Answer | None:
    """Run `command` and give what it printed; None if there is no such program.

    A program that hangs in its driver does not even die of SIGKILL, so it is hardly waited for after that.
    """
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        child = subprocess.Popen(
            [program, *command[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except OSError as error:
        return Answer(127, f"{program}: {error.strerror}")
    try:
        printed, _ = child.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            child.wait(DYING)
        if child.stdout:
            child.stdout.close()
        return Answer(-1, f"{command[0]} gave no answer in {patience:g} s", hung=True)
    return Answer(child.returncode, printed.decode("utf-8", "replace").strip())
