"""A real process that behaves to trainctl as the engine does, without torch: same lock, heartbeat, events, exit.json.

What it does follows from the first word of the run's name: quick, sleep, deaf (ignores SIGTERM), crash, suicide,
orphan (leaves a child behind), lacks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from engine.events import EventLog
from engine.lifecycle import Lifecycle
from engine.rundir import RunDir


def main() -> int:
    run = RunDir(Path(sys.argv[1]))
    kind = run.json("run.json")["name"].split("-")[0]
    if "--evaluate" in sys.argv:
        return evaluate(run, kind)
    with open(run.path / "starts", "a") as file:
        file.write(
            f"{time.time()} {os.environ.get('CUDA_VISIBLE_DEVICES', '-')} {os.environ.get('OMP_NUM_THREADS', '-')}\n"
        )
    print(f"fake engine on {run.id}, \x1b[31mred\x1b[0m", flush=True)
    if kind == "crash":
        print("boom", file=sys.stderr)
        return 7
    if kind == "suicide":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "orphan":
        child = subprocess.Popen(["sleep", "60"])
        (run.path / "orphan").write_text(str(child.pid))
        os.kill(os.getpid(), signal.SIGSEGV)
    with Lifecycle(run) as life:
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if kind == "lacks":
            return life.end("failed", 3, "no data set", "put it there")
        return work(run, life, 18_000 if kind in ("sleep", "deaf") else 3)


def work(run: RunDir, life: Lifecycle, epochs: int) -> int:
    log = EventLog(run.events)
    log.write("start", epochs=epochs, steps_per_epoch=2, device="cpu")
    log.write("stage", stage="train")
    for epoch in range(1, epochs + 1):
        time.sleep(0.1)
        log.write("step", step=2 * epoch - 1, epoch=epoch, loss=1.0 / epoch, images_per_second=1000.0)
        values = {
            "loss": 1.5,
            "loss_robust": 1.0,
            "loss_topology": 0.5,
            "train_natural": 90.0,
            "train_adversarial": 50.0,
        }
        log.write(
            "epoch", epoch=epoch, epochs=epochs, step=2 * epoch, **values, validation_natural=91.0,
            validation_pgd10=51.0, seconds=0.1, images_per_second=1000.0,
        )  # fmt: skip
        run.checkpoints.mkdir(exist_ok=True)
        for which in ("best", "last"):
            run.checkpoint(which).write_bytes(b"weights")
        if life.should_stop():
            return life.end("killed", 143, "stopped by SIGTERM", "resume goes on")
    log.write("stage", stage="evaluate")
    log.write("warning", message="this is a fake")
    for metric, value in (("natural", 95.0), ("pgd20", 53.25)):
        log.write("eval", metric=metric, value=value, n=360, checkpoint="best")
    return life.end("done", 0)


def evaluate(run: RunDir, kind: str) -> int:
    attacks = sys.argv[sys.argv.index("--evaluate") + 1]
    checkpoint = sys.argv[sys.argv.index("--checkpoint") + 1]
    with Lifecycle(run, record=False) as life:
        if "cw20" in attacks:
            while not life.should_stop():
                time.sleep(0.05)
            return 130
        if "aa" in attacks:
            print("error: no AutoAttack here\npip install it", file=sys.stderr)
            return 3
        for metric in attacks.split(","):
            EventLog(run.events).write("eval", metric=metric, value=50.5, n=100, checkpoint=checkpoint)
    return 0


if __name__ == "__main__":
    sys.exit(main())
