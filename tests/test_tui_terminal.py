"""The dashboard as a process in a terminal that goes away."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from dashboard import made
from fake_trainctl import ROOT, until


@pytest.mark.parametrize("leader", [True, False], ids=["its own terminal", "somebody else's"])
def test_it_ends_with_its_terminal(tmp_path: Path, leader: bool) -> None:
    home = made(tmp_path / "home")
    before = {run.id: run.status() for run in home.run_dirs()}
    master, slave = pty.openpty()
    take = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); " if leader else ""
    start = f"{take}import sys; from trainctl.__main__ import main; sys.argv = ['trainctl', 'tui']; main()"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", start], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        env={**os.environ, "TRAINCTL_HOME": str(home.path), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(slave)
    seen = b""
    while b"digits" not in seen:
        seen += os.read(master, 65536)
    os.close(master)
    closed = time.monotonic()
    until(lambda: process.poll() is not None, 10)
    assert time.monotonic() - closed < 2.0
    assert {run.id: run.status() for run in home.run_dirs()} == before
