"""Real engines in a tenth of a second: a process that has imported everything forks one per run folder.

    python forge.py         reads the path of a run folder a line, and forks an engine for it

An engine spends seconds on importing torch, which a test that kills it a hundred times cannot. What the forge forks
is a process as `python -m engine RUN_FOLDER` makes it, in a session of its own and with its output in stdout.log: it
goes through the same `main`, is killed by the same signals and ends with the same exit code. The forge itself takes
no step of torch, so that there is no thread and no state which the engines could share.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

ROOT = Path(__file__).parent.parent
# The engine, and what it imports on its way.
IMPORTED = ("engine.worker", "engine.timing", "sklearn.datasets", "safetensors.torch", "torch._dynamo", "tomli")
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# What engine/__main__.py settles before torch is imported.
SETTLED = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "OMP_WAIT_POLICY": "passive"}


class Forge:
    """Context of one forge. It has one engine at a time."""

    def __enter__(self) -> Forge:
        """Start it; it imports while the caller goes on."""
        self._sessions: list[int] = []
        self.engine: Engine | None = None
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            cwd=ROOT, env={**os.environ, **ONE_THREAD, **SETTLED, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, with an engine that a failed test has left."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def start(self, folder: Path) -> Engine:
        """Begin or resume the run in `folder`."""
        if self.engine is not None:  # a test has failed over it
            self.engine.wait(0.0)
        self.tell(str(folder))
        self.engine = Engine(self, int(self.hear()))
        self._sessions.append(self.engine.pid)
        return self.engine

    def left(self) -> list[int]:
        """Pids in the sessions of its engines: what an engine left running."""
        return [pid for pid in psutil.pids() if _session(pid) in self._sessions]

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")

    def hear(self) -> str:
        """The next line that it says."""
        assert self._process.stdout
        return self._process.stdout.readline()


class Engine:
    """An engine that the forge has forked. Its pid stays its own until `wait`."""

    def __init__(self, forge: Forge, pid: int) -> None:
        self.pid = pid
        self._forge = forge
        self._end = os.pidfd_open(pid)

    def ended(self, seconds: float = 0.0) -> bool:
        """True once it has ended; waits up to `seconds` for that."""
        return bool(select.select([self._end], [], [], seconds)[0])

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, -N for signal N; killed if it has not ended after `seconds`."""
        if not self.ended(seconds):
            self.send(signal.SIGKILL)
        os.close(self._end)
        self._forge.engine = None
        self._forge.tell("reap")
        return int(self._forge.hear())


def _session(pid: int) -> int:
    with suppress(OSError):
        return os.getsid(pid)
    return 0


def main() -> int:
    """Fork and reap until nobody asks any more; in a fork it is the engine's own `main`."""
    for name in IMPORTED:
        importlib.import_module(name)
    from engine.__main__ import main as engine

    assert len(os.listdir("/proc/self/task")) == 1, "a fork would hold locks of a thread that it has not"  # noqa: PTH208
    gc.freeze()  # else each engine, as it ends, goes through all that was imported and so copies it

    while line := sys.stdin.readline().strip():
        child = os.fork()
        if not child:
            _as_launched(Path(line))
            return engine()
        print(child, flush=True)
        if not sys.stdin.readline():  # the test has failed
            os.kill(child, signal.SIGKILL)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return 0


def _as_launched(folder: Path) -> None:
    """Give this process what the launcher gives an engine: a session, no input, its output in stdout.log."""
    os.setsid()
    log = os.open(folder / "stdout.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(descriptor, target)
    sys.argv = ["engine", str(folder)]


if __name__ == "__main__":
    sys.exit(main())
