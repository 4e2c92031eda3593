"""The training loop: make x' -> one shared set of forwards -> a sum of named losses -> step.

No method is named here. What a method needs it says itself (engine/methods), what TRAIN and the other terms add is
a regularizer (engine/regularizers), and every random number is a function of the seed and the position, so a
checkpoint needs weights, momentum and the position only, and a resumed run is bit-identical.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from engine import checkpoint
from engine.attacks.training import training_attack
from engine.data.base import Splits
from engine.data.batches import Batches
from engine.evaluate.selection import select_accuracies
from engine.events import EventLog
from engine.lifecycle import Lifecycle
from engine.losses import cross_entropy
from engine.machine import Machine
from engine.methods.base import Method, Order
from engine.networks import Forward, Networks, build_optimizer, learning_rate
from engine.randomness import derive, generator
from engine.recipe import Recipe
from engine.regularizers.base import Regularizer
from engine.step import Batch, Perturbed, Position, Step, split


class Diverged(Exception):
    """The loss is no longer a number."""


class Interrupted(Exception):
    """A signal asked the run to stop; the last checkpoint holds the position."""


@dataclass
class Progress:
    """Where training stands. Everything a resumed run needs besides tensors."""

    stage: str = "train"
    epoch: int = 1
    batch: int = 0  # batches of this epoch that are done
    step: int = 0  # optimizer steps so far, over all stages
    seconds: float = 0.0  # spent in this epoch so far
    examples: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # sum over the epoch's examples, by metric
    best: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Trains one run from wherever its last checkpoint stands."""

    def __init__(
        self, recipe: Recipe, method: Method, regularizers: dict[str, Regularizer], splits: Splits,
        networks: Networks, machine: Machine, life: Lifecycle, log: EventLog, recipe_hash: str,
    ) -> None:  # fmt: skip
        """`method` and `regularizers` (by name) are prepared for this run."""
        self.recipe, self.method, self.splits, self.networks = recipe, method, splits, networks
        self.regularizers = regularizers
        self.machine, self.life, self.log = machine, life, log
        self.recipe_hash = recipe_hash
        self.batches = 0  # steps an epoch
        self.attack = training_attack(recipe.attack, method, recipe.run.micro_batch, recipe.run.fold)
        self.forward = Forward(machine, recipe.run.seed)
        self.order = Order(method.forwards)
        if recipe.method.forwards == "official" and self.attack is not None:
            self.order = method.official(self.attack)
        pretrain = networks.frozen and not recipe.standard.weights
        self._enter(Progress(stage="pretrain" if pretrain else "train"))

    def run(self) -> None:
        """Train to the end. Raises Diverged, Interrupted, or what torch raises when memory ends."""
        if self.progress.stage == "pretrain":
            self._stage("pretrain", self._pretrain_step, derive(self.recipe.run.seed, "pretrain"))
            self._enter(Progress(stage="train", step=self.progress.step))
        self._stage("train", self._train_step, self.recipe.run.seed)

    # --- position -------------------------------------------------------------------------------------------

    def resume(self) -> int | None:
        """Continue from checkpoints/last, if there is one: returns the bytes of events.jsonl that belong to it.

        A warning about a damaged one goes to the process's output: the events stay those of an uninterrupted run.
        """
        path = self.life.rundir.checkpoint("last")
        found = checkpoint.load_newest(path)
        if found is None:
            return None
        tensors, state, warning = found
        if warning:
            print(f"warning: {warning}", flush=True)
        if state.get("recipe") != self.recipe_hash:
            raise checkpoint.CheckpointError(f"{path}: recipe.toml was changed after this checkpoint was written")
        checkpoint.check_state(state, path)
        with checkpoint.fitting(path):
            self._enter(Progress(**state["progress"]))
            self.networks.restore(tensors, path)
            checkpoint.restore_optimizer(self.optimizer, self.names, checkpoint.pick(tensors, "optimizer."))
            if self.method.memory is not None:
                checkpoint.restore(self.method.memory, checkpoint.pick(tensors, "method."), path)
            for name, regularizer in self.regularizers.items():
                regularizer.load_state(checkpoint.pick(tensors, f"terms.{name}."))
        self.life.step = self.progress.step
        return int(state["events"])

    def _save(self, which: str, **announce: Any) -> None:
        """Write a checkpoint; `announce` makes it an event too, which then belongs to what it vouches for."""
        path = self.life.rundir.checkpoint(which)
        tensors = self.networks.tensors()
        state = {"recipe": self.recipe_hash, "progress": asdict(self.progress), "rule": self._rule(which)}
        if which == "last":
            tensors |= checkpoint.put(checkpoint.optimizer_state(self.optimizer, self.names), "optimizer.")
            if self.method.memory is not None:
                tensors |= checkpoint.put(self.method.memory.state_dict(), "method.")
            for name, regularizer in self.regularizers.items():
                tensors |= checkpoint.put(regularizer.state(), f"terms.{name}.")
        if announce:
            self.log.write("checkpoint", checkpoint=which, rule=self._rule(which), file=path.name, **announce)
        checkpoint.save(path, tensors, {**state, "events": self.log.position()}, keep=which == "last")

    def _rule(self, which: str) -> str:
        return "last epoch" if which == "last" else f"best {self.recipe.eval.best_by} on {self.recipe.eval.select}"

    def _enter(self, progress: Progress) -> None:
        """Go to a position. A stage has an optimizer of its own, over what learns in it."""
        self.progress = progress
        standard = self.networks.standard
        if progress.stage == "pretrain" and standard is not None:
            self.names: dict[Tensor, str] = {p: f"standard.{n}" for n, p in standard.named_parameters()}
        else:
            self.names = self.networks.trained()
            for term, regularizer in self.regularizers.items():
                self.names |= {parameter: f"terms.{term}.{name}" for name, parameter in regularizer.learnt().items()}
            if standard is not None and self.networks.frozen:
                standard.requires_grad_(False)
        self.optimizer = build_optimizer(self.recipe.optim, list(self.names))

    # --- the loop -------------------------------------------------------------------------------------------

    def _stage(self, stage: str, take_step: Callable[[Batch], dict[str, Tensor]], seed: int) -> None:
        data = self.recipe.data
        batches = Batches(
            self.splits.train, self.recipe.optim.batch_size, crop=data.crop, padding=data.padding, flip=data.flip,
            seed=seed, device=self.machine.device,
        )  # fmt: skip
        self.batches = len(batches)
        if self.progress.epoch == 1 and self.progress.batch == 0:
            self.log.write("stage", stage=stage)
        while self.progress.epoch <= self.recipe.schedule.epochs:
            self._epoch(batches, take_step)
            self._end_epoch()

    def _epoch(self, batches: Batches, take_step: Callable[[Batch], dict[str, Tensor]]) -> None:
        at = self.progress
        self._set_mode()
        rate = learning_rate(self.recipe.optim, self.recipe.schedule, at.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        clock = time.perf_counter()
        sums: Tensor | None = None
        names: list[str] = []
        for batch in batches.epoch(at.epoch, at.batch):
            self.forward.position = (at.stage, at.epoch, at.batch)
            metrics = take_step(batch)
            names = list(metrics)
            values = torch.stack([value.detach().double() for value in metrics.values()])
            if sums is None:
                sums = torch.tensor([at.sums.get(n, 0.0) for n in names], dtype=torch.float64, device=values.device)
            sums += values * len(batch.y)
            at.batch, at.step, at.examples = at.batch + 1, at.step + 1, at.examples + len(batch.y)
            self.life.step = at.step
            if at.step % self.recipe.run.log_every == 0 or values.device.type == "cpu":
                self._look(
                    dict(zip(names, values.tolist(), strict=True)), rate, at.seconds + time.perf_counter() - clock
                )
            if self.life.should_stop():
                at.sums = dict(zip(names, sums.tolist(), strict=True))
                at.seconds += time.perf_counter() - clock
                self._stop_here()
        if sums is not None:
            at.sums = dict(zip(names, sums.tolist(), strict=True))
        at.seconds += time.perf_counter() - clock

    def _stop_here(self) -> None:
        """Write the position down and go; a resumed run takes the next batch, or, behind the last, ends the epoch."""
        self._refuse_nonsense()
        self._save("last")
        raise Interrupted

    def _refuse_nonsense(self) -> None:
        """Before a checkpoint is written: on a GPU a loss is looked at only where it is logged."""
        bad = next((name for name, total in self.progress.sums.items() if not math.isfinite(total)), None)
        if bad:
            raise Diverged(f"{bad} became no number in epoch {self.progress.epoch}")

    def _look(self, metrics: dict[str, float], rate: float, seconds: float) -> None:
        """Log the step if it is due; stop at once when the loss is no longer a number."""
        at = self.progress
        bad = next((name for name, value in metrics.items() if not math.isfinite(value)), None)
        if at.step % self.recipe.run.log_every == 0 or bad:
            self.log.write(
                "step", step=at.step, epoch=at.epoch, stage=at.stage, lr=rate, **metrics,
                images_per_second=round(at.examples / max(seconds, 1e-9), 1),
            )  # fmt: skip
        if bad:
            raise Diverged(f"{bad} became {metrics[bad]} at step {at.step} (epoch {at.epoch})")

    def _end_epoch(self) -> None:
        at, recipe = self.progress, self.recipe
        self._refuse_nonsense()
        means = {name: total / max(at.examples, 1) for name, total in at.sums.items()}
        speed = round(at.examples / max(at.seconds, 1e-9), 1)
        chosen = self._choose() if at.stage == "train" else {}
        self.log.write(
            "epoch", epoch=at.epoch, epochs=recipe.schedule.epochs, step=at.step, stage=at.stage,
            lr=learning_rate(recipe.optim, recipe.schedule, at.epoch), **means, **chosen,
            seconds=round(at.seconds, 3), images_per_second=speed,
        )  # fmt: skip
        epoch = at.epoch
        at.epoch, at.batch, at.seconds, at.examples, at.sums = epoch + 1, 0, 0.0, 0, {}
        if at.best.get("epoch") == epoch:
            self._save("best", epoch=epoch, step=at.step, value=at.best["value"])
        self._save("last", epoch=epoch, step=at.step)
        if self.life.should_stop():
            raise Interrupted

    def _choose(self) -> dict[str, float]:
        """Accuracies on the selection split when they are due, and what they cost; remembers the best epoch. Ties go to
        the higher natural accuracy, then to the earlier epoch.
        """
        rule, at, began = self.recipe.eval, self.progress, time.perf_counter()
        if at.epoch % rule.every and at.epoch != self.recipe.schedule.epochs:
            return {}
        split = self.splits.test if rule.select == "test" else self.splits.validation
        if split is None:
            raise RuntimeError("the data set gave no validation split")

        def poll() -> None:
            if self.life.should_stop():
                self._stop_here()

        with self.networks.eager():
            found = select_accuracies(self.recipe, self.networks.adversarial, split, self.machine.device, poll)
        value = [found[rule.best_by], found["natural"]]
        if not at.best or value > at.best["key"]:
            at.best = {"epoch": at.epoch, "value": value[0], "key": value}
        accuracies = {f"{rule.select}_{name}": accuracy for name, accuracy in found.items()}
        return accuracies | {"selection_seconds": round(time.perf_counter() - began, 3)}

    def _set_mode(self) -> None:
        self.networks.mode(training=True)
        if self.progress.stage == "pretrain" and self.networks.standard is not None:
            self.networks.standard.train()

    # --- one step -------------------------------------------------------------------------------------------

    def _train_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step, its images taken in parts of run.micro_batch; returns its metrics."""
        at, network = self.progress, self.networks.adversarial
        perturbed: Perturbed | None = None

        def robust_loss(network: nn.Module) -> Tensor:
            return self._robust_loss(network, batch, perturbed)

        self._again(self.order.before_attack, batch, perturbed)
        if self.attack is not None:
            start = generator(self.machine.device, self.recipe.run.seed, "attack", at.epoch, at.batch)
            with self.forward.precision():
                perturbed = self.method.perturb(network, batch, self.attack, self._position(), start)
        self._again(self.order.before, batch, perturbed)
        with self.method.displaced(network, robust_loss, self._position()):
            metrics = self._update(self._losses(step, len(batch.y)) for step in self._steps(network, batch, perturbed))
        self._again(self.order.after, batch, perturbed)
        return metrics

    def _pretrain_step(self, batch: Batch) -> dict[str, Tensor]:
        """One step of M alone, on x."""
        standard = self.networks.standard
        assert standard is not None

        def losses(step: Step) -> tuple[Tensor, dict[str, Tensor]]:
            loss = cross_entropy(step.standard.logits, step.y) * (len(step.y) / len(batch.y))
            return loss, {"loss_standard": loss, **_accuracies(step, len(batch.y))}

        return self._update(losses(step) for step in self._steps(standard, batch))

    def _position(self) -> Position:
        at = self.progress
        return Position(at.epoch, self.recipe.schedule.epochs, at.batch, self.batches)

    def _steps(self, network: nn.Module, batch: Batch, perturbed: Perturbed | None = None) -> Iterator[Step]:
        """The forwards of a step of M' `network`: in one, or one part after the other."""
        for number, part in enumerate(split(len(batch.y), self.recipe.run.micro_batch)):
            images = None if perturbed is None else perturbed[part]
            yield Step(network, self.networks.standard, batch[part], images, self.forward, self._position(), number)

    def _again(self, names: tuple[str, ...], batch: Batch, perturbed: Perturbed | None) -> None:
        for step in self._steps(self.networks.adversarial, batch, perturbed):
            step.again(names)

    def _robust_loss(self, network: nn.Module, batch: Batch, perturbed: Perturbed | None) -> Tensor:
        """L_robust of one step for a stand-in of M', computed anew."""

        def part_of_it(number: int) -> Tensor:
            step = list(self._steps(network, batch, perturbed))[number]  # a new one, whose forwards are yet to be made
            return torch.stack(list(self.method.losses(step).values())).sum() * (len(step.y) / len(batch.y))

        count = len(split(len(batch.y), self.recipe.run.micro_batch))
        if count == 1:
            return part_of_it(0)
        # Its gradient makes the forwards of one part after the other again, so none are kept until then.
        return torch.stack([recomputed(part_of_it, number, use_reentrant=False) for number in range(count)]).sum()

    def _update(self, parts: Iterable[tuple[Tensor, dict[str, Tensor]]]) -> dict[str, Tensor]:
        """Gradient and update from the loss and the metrics of each part of a step, which add up to those of the step;
        returns the metrics.
        """
        metrics: dict[str, Tensor] = {}
        self.optimizer.zero_grad(set_to_none=True)
        for loss, found in parts:
            loss.backward()  # type: ignore[no-untyped-call]
            metrics = {name: value.detach() + metrics.get(name, 0) for name, value in found.items()}
        self.optimizer.step()
        return metrics

    def _losses(self, step: Step, whole: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Forwards, loss and metrics of a part of a step of `whole` images, each as its share of the whole."""
        networks, share = self.networks, len(step.y) / whole
        step.make(self.order.loss)
        needed = dict.fromkeys(name for regularizer in self.regularizers.values() for name in regularizer.needs)
        step.make(name for name in needed if name not in self.order.loss)

        parts = {name: part * share for name, part in self.method.losses(step).items()}
        robust = torch.stack(list(parts.values())).sum()
        metrics = {"loss": robust, "loss_robust": robust, **{f"loss_{name}": part for name, part in parts.items()}}
        total = robust
        for name, regularizer in self.regularizers.items():
            if f"loss_{name}" in metrics:
                method = self.recipe.method.name
                raise ValueError(f"terms.{name}: method {method} has a loss of that name; rename the term")
            unweighted = regularizer.loss(step) * regularizer.share(len(step.y), whole)
            weighted = regularizer.scale(step.position.epoch) * unweighted
            total = total + weighted
            metrics |= {"loss": total, f"loss_{name}": weighted}
            if regularizer.measure:
                metrics[regularizer.measure] = unweighted
        if networks.standard is not None and not networks.frozen:
            standard = cross_entropy(step.standard.logits, step.y) * share
            total = total + standard
            metrics["loss_standard"] = standard
        return total, metrics | _accuracies(step, whole)


def _accuracies(step: Step, whole: int) -> dict[str, Tensor]:
    """Training accuracies, from the forwards that were made anyway: what a part adds to those of `whole` images."""
    names = {"natural": "train_natural", "adversarial": "train_adversarial", "standard": "train_standard"}
    made = {label: vars(step)[name] for name, label in names.items() if name in vars(step)}
    share = len(step.y) / whole
    return {label: _percent(output.logits, step.y) * share for label, output in made.items()}


def _percent(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.detach().argmax(1) == labels).double().mean() * 100


def parameters(network: nn.Module) -> int:
    """Number of weights."""
    return sum(p.numel() for p in network.parameters())
