"""What a step costs: several recipes side by side in one process, a few steps of each in turn.

A run folder that holds recipes in timed/ is such a measurement: `python -m engine RUN_FOLDER` then trains nothing to
the end. It takes real steps of all of them, round by round, so that whatever else the machine does meets all alike,
writes one "timing" event for each, and the run is done. The machine is the one that the folder's recipe.toml asks for.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from engine import machine, narrate, worker
from engine.data.batches import Batches
from engine.events import EventLog
from engine.lifecycle import Lifecycle
from engine.machine import Machine
from engine.recipe import check
from engine.rundir import RunDir, replace, toml
from engine.step import Batch
from engine.train import Interrupted

FOLDER = "timed"
STEPS = 3  # of one recipe before it is the next one's turn
WARM_UP = 2  # rounds that do not count: kernels are chosen and memory is taken in them
SECONDS = 60.0  # rounds go on for so long, but
ROUNDS = range(5, 41)  # never fewer or more than so many


def is_wanted(folder: Path) -> bool:
    """True if the run in `folder` is a measurement."""
    return (folder / FOLDER).is_dir()


def measure(folder: Path) -> int:
    """Carry out the measurement in `folder`; an interrupted one begins again. Returns the exit code."""
    return worker.carry_out(folder, _measure)


def _measure(life: Lifecycle, rundir: RunDir) -> None:
    recipe = worker.read_recipe(rundir)
    setup = machine.prepare(recipe.run, recipe.model)
    rundir.write_json("env.json", machine.environment(recipe, setup))
    replace(rundir.events, "")
    log = EventLog(rundir.events, narrate.say)
    life.began(None)
    files = sorted((rundir.path / FOLDER).glob("*.toml"), key=lambda file: int(file.stem))
    timed = [Timed(file, setup, life, log) for file in files]
    first = timed[0].trainer
    worker.say_start(log, first.recipe, setup, first.splits, first.networks, compiled=False)
    log.write("stage", stage="timing")
    rounds = list(_rounds(timed, life))
    for index, (file, one) in enumerate(zip(files, timed, strict=True)):
        taken = [seconds for turns in rounds for seconds in turns[index]]
        step = statistics.median(taken)
        log.write(
            "timing", setting=int(file.stem), title=one.trainer.recipe.title, seconds_per_step=step, steps=len(taken),
            steps_per_epoch=len(one.batches), seconds_per_epoch=step * len(one.batches), rounds=len(rounds),
            round_seconds=[statistics.median(turns[index]) for turns in rounds],
        )  # fmt: skip


def _rounds(timed: list[Timed], life: Lifecycle) -> Iterator[list[list[float]]]:
    """For each round that counts, the seconds of each step of each of `timed`."""
    begun = 0.0
    for number in range(-WARM_UP, ROUNDS.stop):
        if number == 0:
            begun = time.perf_counter()
        if number >= ROUNDS.start and time.perf_counter() - begun > SECONDS:
            return
        turns = []
        for one in timed:
            if life.should_stop():
                raise Interrupted
            turns.append(one.steps())
        if number >= 0:
            yield turns


class Timed:
    """One recipe, ready to take steps."""

    def __init__(self, file: Path, setup: Machine, life: Lifecycle, log: EventLog) -> None:
        recipe = check(toml(file))
        self.device = setup.device
        self.trainer = worker.make_trainer(recipe, setup, life, log)
        data = recipe.data
        self.batches = Batches(
            self.trainer.splits.train, recipe.optim.batch_size, crop=data.crop, padding=data.padding, flip=data.flip,
            seed=recipe.run.seed, device=setup.device,
        )  # fmt: skip
        self.trainer.batches = len(self.batches)
        self._endless = self._epochs()

    def steps(self) -> list[float]:
        """Take STEPS steps; returns the seconds of each, with that of making its batch."""
        self.trainer._set_mode()
        taken = []
        for _ in range(STEPS):
            self._synchronize()
            begun = time.perf_counter()
            self.trainer._train_step(next(self._endless))
            self._synchronize()
            taken.append(time.perf_counter() - begun)
        return taken

    def _epochs(self) -> Iterator[Batch]:
        """Full batches without end; the smaller last one of an epoch would be another measurement."""
        at = self.trainer.progress
        while True:
            for number, batch in enumerate(self.batches.epoch(at.epoch)):
                at.batch = number
                if len(batch.y) == self.trainer.recipe.optim.batch_size or len(self.batches) == 1:
                    self.trainer.forward.position = (at.stage, at.epoch, at.batch)
                    yield batch
            at.epoch += 1

    def _synchronize(self) -> None:
        """A GPU works on after a call returns."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
