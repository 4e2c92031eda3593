"""An engine that is killed again and again ends as if nobody had touched it, bit for bit.

TRAINCTL_KILLS is how often each of the three runs is killed: 20 by default, 100 in `make soak`. `pytest -rP` shows
where the kills struck.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import run_engine
from fake_trainctl import until
from forge import Engine, Forge

from engine import checkpoint, events
from engine.lifecycle import STOP_SIGNALS
from engine.rundir import RunDir

KILLS = int(os.environ.get("TRAINCTL_KILLS", "20"))
# Epochs of a tenth of a second, with all that a run can carry: augmentation, M, M's pretraining, AWP, LAS's network S.
SMALL: dict[str, Any] = {
    "schedule__epochs": 8, "data__train_examples": 48, "data__crop": 1, "data__flip": True, "optim__batch_size": 16,
    "attack__steps": 1, "eval__examples": 20, "eval__topology_support": 20, "eval__batch_size": 64,
    "eval__every": 2,
    "topology__enabled": True, "run__log_every": 1,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "TRADES + TRAIN": {},
    "AWP + TRAIN*": {
        "method__name": "awp", "method__base": "trades", "topology__variant": "star", "model__arch": "wrn-10-1",
        "model__dropout": 0.3,
    },
    "LAS + TRAIN": {
        "method__name": "las", "method__base": "trades", "method__strategy_width": 4, "method__every": 2,
        "method__steps_lowest": 1, "method__steps_options": 2,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def forge() -> Iterator[Forge]:
    with Forge() as opened:
        yield opened


@dataclass
class Storm:
    """Kills of one run, each at a moment drawn by chance, and where they struck."""

    forge: Forge
    run: RunDir
    chance: random.Random
    pace: Pace
    struck: Counter[str] = field(default_factory=Counter)

    def attempt(self, moment: str, number: signal.Signals) -> bool:
        """Start the engine and send it `number` at a moment of this kind; False if it ended before."""
        attempts = lines(self.run.attempts)
        engine = self.forge.start(self.run.path)
        getattr(self, moment)(engine)
        engine.send(number)
        code = engine.wait()
        if code != -number:
            assert code in (0, 128 + number), f"{moment}: code {code}\n{self.run.log.read_text()[-3000:]}"
        if number is signal.SIGKILL and code:
            self.struck[self.place(attempts)] += 1
        elif code:
            self.struck[number.name] += 1
            assert (code, self.run.status()) == (128 + number, STOP_SIGNALS[number])
        return code != 0

    def place(self, attempts: int) -> str:
        """What a killed engine was about."""
        if any(self.run.checkpoints.glob(".*")):
            return "writing a checkpoint"
        if lines(self.run.attempts) == attempts:
            return "starting"
        stages = [event["stage"] for event in log(self.run) if event["event"] == "stage"]
        return {"evaluate": "evaluating", "pretrain": "pretraining"}.get(stages[-1] if stages else "", "training")

    def anywhere(self, engine: Engine) -> None:
        """Any time between its first instant and a few epochs later."""
        engine.ended(self.chance.uniform(0, self.pace.begin + 3 * self.pace.epoch))

    def at_work(self, engine: Engine) -> None:
        """Once it takes steps: before, it does not answer signals."""
        attempts = lines(self.run.attempts)
        wait(engine, lambda: lines(self.run.attempts) > attempts, every=0.005)
        engine.ended(self.chance.uniform(0, self.pace.epoch))

    def writing(self, engine: Engine) -> None:
        """While a checkpoint is being written."""
        wait(engine, lambda: any(".last" in name for name in listed(self.run.checkpoints)))
        self._instant(engine)

    def written(self, engine: Engine) -> None:
        """Right after one was renamed into place: the generations change, and the folder is synced."""
        before = inode(self.run.checkpoint("last"))
        wait(engine, lambda: inode(self.run.checkpoint("last")) not in (0, before))
        self._instant(engine)

    def evaluating(self, engine: Engine) -> None:
        """During the evaluations."""
        wait(engine, lambda: self.run.events.exists() and b'"evaluate"' in self.run.events.read_bytes(), every=0.005)
        engine.ended(self.chance.uniform(0, self.pace.evaluation))

    def _instant(self, engine: Engine) -> None:
        """At once, or from a microsecond to some milliseconds later."""
        engine.ended(self.chance.choice([0.0, 10 ** self.chance.uniform(-6, -2)]))


@dataclass(frozen=True)
class Pace:
    """Seconds that the parts of the undisturbed run took on this machine."""

    begin: float
    epoch: float
    evaluation: float

    @classmethod
    def of(cls, run: RunDir, started: float) -> Pace:
        """From the events of a run whose process was started at unix time `started`."""
        found = log(run)
        [first] = [event["t"] for event in found if event["event"] == "start"]
        epochs = [event["t"] for event in found if event["event"] == "epoch" and event["stage"] == "train"]
        return cls(first - started, (epochs[-1] - epochs[0]) / len(epochs), found[-1]["t"] - epochs[-1])


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", RUNS)
def test_killed_at_random_moments_it_resumes_bit_identically(
    name: str, forge: Forge, make_folder: Callable[..., RunDir]
) -> None:
    chance = random.Random(name)
    whole = make_folder("whole", **SMALL, **RUNS[name])
    engine, begun = forge.start(whole.path), time.time()
    assert engine.wait() == 0, whole.log.read_text()
    expected = left_behind(whole)
    moments = drawn(chance)
    struck: Counter[str] = Counter()
    resumed: set[int] = set()
    rounds = 0
    while moments:  # a run that has come to its end is compared, and the storm goes on over a new one
        rounds += 1
        broken = make_folder(f"broken{rounds}", **SMALL, **RUNS[name])
        storm = Storm(forge, broken, chance, Pace.of(whole, begun), struck)
        while moments and storm.attempt(*moments[-1]):
            moments.pop()
        if broken.status() != "done":
            assert forge.start(broken.path).wait() == 0, broken.log.read_text()
        for part, value in left_behind(broken).items():
            assert value == expected[part], f"{part} of {broken.path} differ from those of {whole.path}; {struck}"
        resumed |= {json.loads(line)["resumed_from"] or 0 for line in broken.attempts.read_text().splitlines()}
    print(f"{name}: {rounds} runs killed {KILLS} times: {dict(struck)}; resumed from steps {sorted(resumed)}")
    assert sum(struck.values()) == KILLS + KILLS // 10
    assert struck["writing a checkpoint"] and struck["evaluating"]
    assert struck["pretraining"] or "*" not in name
    assert resumed - {0}
    until(lambda: not forge.left())


def test_what_the_forge_forks_is_the_engine(forge: Forge, make_folder: Callable[..., RunDir]) -> None:
    """The real program leaves the same behind, and ends with the same code."""
    forked, program = (make_folder(name, **{**SMALL, "schedule__epochs": 1}) for name in ("forked", "program"))
    engine = forge.start(forked.path)
    wait(engine, lambda: os.getsid(engine.pid) == os.getpgid(engine.pid) == engine.pid)
    done = run_engine(program)
    assert engine.wait() == done.returncode == 0, done.stderr
    assert left_behind(forked) == left_behind(program)
    plain = [re.sub(r"[\d.]+", "#", text) for text in (forked.log.read_text(), done.stdout)]
    assert plain[0] == plain[1]
    assert set(forked.json("env.json")) == set(program.json("env.json"))


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_has_it_checkpoint_and_go(
    number: signal.Signals, forge: Forge, make_folder: Callable[..., RunDir]
) -> None:
    run = make_folder(**{**SMALL, "schedule__epochs": 500})
    engine = forge.start(run.path)
    wait(engine, lambda: any(event["event"] == "step" for event in log(run)), every=0.005)
    engine.send(number)
    assert engine.wait() == 128 + number
    ended = run.json("exit.json")
    assert (ended["status"], ended["signal"], run.status()) == (STOP_SIGNALS[number], number.name, ended["status"])
    assert log(run)[-1]["status"] == ended["status"]
    steps = max(event["step"] for event in log(run) if event["event"] == "step")
    assert checkpoint.load(run.checkpoint("last"))[1]["progress"]["step"] == steps


def drawn(chance: random.Random) -> list[tuple[str, signal.Signals]]:
    """KILLS kinds of moments for SIGKILL and, between them, a tenth as many requests to stop."""
    share = {"writing": KILLS // 4, "written": KILLS // 5, "evaluating": max(1, KILLS // 10)}
    kinds = [kind for kind, number in share.items() for _ in range(number)]
    found = [(kind, signal.SIGKILL) for kind in kinds + ["anywhere"] * (KILLS - len(kinds))]
    found += [("at_work", chance.choice(list(STOP_SIGNALS))) for _ in range(KILLS // 10)]
    chance.shuffle(found)
    found.append(found.pop(found.index(("writing", signal.SIGKILL))))  # the first one, so that M's pretraining is met
    return found


def left_behind(run: RunDir) -> dict[str, Any]:
    """All that a finished run is, apart from what it took in time."""
    found: dict[str, Any] = {"status": run.status(), "events": [timeless(event) for event in log(run)]}
    for which in ("last", "best"):
        path = run.checkpoint(which)
        tensors, state = checkpoint.load(path)
        found[f"tensors of {which}"] = {name: (t.dtype, t.shape, t.numpy().tobytes()) for name, t in tensors.items()}
        # Behind which event it stands, rather than at which byte.
        vouched = run.events.read_bytes()[: state.pop("events")].decode().splitlines()
        found[f"state of {which}"] = {**state, "progress": timeless(state["progress"]), "events": len(vouched)}
    for file in sorted(run.evaluations.iterdir()):
        content = json.loads(file.read_bytes()) if file.suffix == ".json" else file.read_text()
        if file.suffix == ".json":
            content["result"] = timeless(content["result"])
        found[file.name] = content
    found["unfinished"] = [path.name for path in run.path.rglob(".*") if path.suffix in (".tmp", ".kept")]
    return found


def timeless(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in events.TIMES}


def log(run: RunDir) -> list[dict[str, Any]]:
    return [event for _, event in events.read(run.events.read_bytes() if run.events.exists() else b"")]


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def inode(path: Path) -> int:
    """Number of the file at `path`, which changes when it is replaced; 0 if there is none."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 - it is asked thousands of times a second
    except OSError:
        return []


def wait(engine: Engine, condition: Callable[[], object], every: float = 0.0001) -> None:
    """Until `condition` holds or the engine has ended."""
    deadline = time.monotonic() + 120
    while not condition() and not engine.ended(every):
        assert time.monotonic() < deadline, "it never came"
