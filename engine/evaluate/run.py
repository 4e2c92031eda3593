"""All evaluations of one checkpoint of a run, one event each.

A finished evaluation is stored in eval/ and never repeated for the same weights, data and settings: after a restart
its event is written from there, and where the last epoch was the best one it stands for both checkpoints. The images
that PGD-20 makes of the test set are made once and shared by pgd20, topo_robust and l_tp.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine import randomness
from engine.attacks.autoattack import StateFile, autoattack
from engine.data.base import Splits
from engine.data.load import subset
from engine.evaluate import report
from engine.evaluate.accuracy import Outcomes, accuracy, batches, evaluating, images_of
from engine.evaluate.protocols import attack, threat
from engine.evaluate.topology_score import KS, knn_predict_each
from engine.recipe import Recipe
from engine.regularizers.topology import topology_loss
from engine.rundir import RunDir

L_TP_BATCH = 128
"""L_TP is a sum over a batch's pairs, so it is only comparable between batches of one size: that of the paper."""

Measured = tuple[dict[str, Any], Outcomes | None]


class Stopped(Exception):
    """Somebody asked the run to stop; what is finished is stored, and AutoAttack goes on where it was."""


def evaluate_checkpoint(
    *,
    recipe: Recipe,
    splits: Splits,
    network: nn.Module,
    standard: nn.Module | None,
    checkpoint: dict[str, Any],
    rundir: RunDir,
    device: torch.device,
    emit: Callable[..., None],
    should_stop: Callable[[], bool],
) -> None:
    """Evaluate M' (`network`) as the recipe's [eval] says, and write one "eval" event for each metric.

    `checkpoint` has its name ("best" or "last"), epoch and the rule that chose it; `standard` is M, without which
    there is no l_tp. Raises Stopped soon after `should_stop` returns True, and ValueError for settings that cannot
    be carried out with this network.
    """

    def poll() -> None:
        if should_stop():
            raise Stopped

    work = _Evaluation(recipe, splits, network, standard, checkpoint, rundir, device, emit, poll)
    networks = [network] if standard is None else [network, standard]
    with evaluating(*networks):
        for metric in work.metrics():
            poll()
            settings = work.settings(metric)
            known = (rundir, checkpoint["name"], metric, settings)
            result = report.finished(*known) or report.take_over(*known)
            if result is None:
                begun = time.perf_counter()
                result, outcomes = work.measure(metric)
                result.setdefault("seconds", round(time.perf_counter() - begun, 3))
                report.write(*known, result, outcomes)
                work.state_path(metric).unlink(missing_ok=True)
            emit("eval", metric=metric, **result, **{k: v for k, v in settings.items() if not k.endswith("_digest")})


@dataclass
class _Evaluation:
    """One checkpoint's evaluation: what is measured, under which settings, and what several metrics share."""

    recipe: Recipe
    splits: Splits
    network: nn.Module
    standard: nn.Module | None
    checkpoint: dict[str, Any]
    rundir: RunDir
    device: torch.device
    emit: Callable[..., None]
    poll: Callable[[], None]

    def metrics(self) -> list[str]:
        """What is evaluated, in order."""
        section = self.recipe.eval
        names = ["natural", *dict.fromkeys(section.attacks)]
        if section.topology:
            names += ["topo_natural", "topo_robust"]
        if self.standard is not None and len(self.indices) < 3:
            self.emit("warning", message=f"no l_tp: it needs 3 test images, and there are {len(self.indices)}")
        elif self.standard is not None:
            names.append("l_tp")
        return names

    def settings(self, metric: str) -> dict[str, Any]:
        """Everything that the result of `metric` depends on, with the words of the event."""
        section = self.recipe.eval
        is_accuracy = not metric.startswith("topo_") and metric != "l_tp"
        # Support set, adversarial queries and x' of L_TP are made by PGD-20.
        threat_model = threat(section, metric if is_accuracy else "pgd20", self.splits.classes)
        found: dict[str, Any] = {
            "n": len(self._indices_of(metric)), "of": len(self.splits.test), "split": "test",
            "checkpoint": self.checkpoint["name"], "epoch": self.checkpoint["epoch"], "rule": self.checkpoint["rule"],
            **asdict(threat_model), "seed": section.seed, "batch_size": section.batch_size,
            "weights_digest": self._weights_digest, "test_digest": self._test_digest,
        }  # fmt: skip
        if metric == "aa":
            found["examples_digest"] = report.digest([self._indices_of(metric)])
        elif metric == "l_tp" and self.standard is not None:
            found["standard_digest"] = report.digest(self.standard.state_dict().values())
            found["l_tp_batch_size"] = L_TP_BATCH
            found["reading"] = "default"  # whatever the run trained with, so that runs can be compared
        elif not is_accuracy:
            found |= {"k": self.k, "distance": section.topology_distance, "support": 2 * len(self.support_indices)}
            found["ks"] = self.ks
            found["train_digest"] = self._train_digest
        return found

    def measure(self, metric: str) -> Measured:
        """Result (at least `value`) and, for accuracies, the outcome of each example."""
        if metric == "aa":
            return self._autoattack()
        if metric == "l_tp":
            return self._l_tp(), None
        if metric.startswith("topo_"):
            return self._topology_score(metric)
        outcomes = self.perturbed if metric == "pgd20" else self._accuracy(metric)
        return {"value": outcomes.percent}, outcomes

    # --- examples -------------------------------------------------------------------------------------------

    @cached_property
    def indices(self) -> Tensor:
        """Examples of the test set that are evaluated."""
        return subset(self.splits.test, self.recipe.eval.examples)

    @cached_property
    def support_indices(self) -> Tensor:
        """Training images in the support set of the topology scores, each natural and adversarial."""
        return subset(self.splits.train, self.recipe.eval.topology_support)

    @cached_property
    def k(self) -> int:
        """Neighbours that vote: as many as asked for and there are."""
        asked, points = self.recipe.eval.topology_k, 2 * len(self.support_indices)
        if asked > points:
            self.emit("warning", message=f"topology scores with k = {points}, not {asked}: there are no more points")
        return min(asked, points)

    @property
    def ks(self) -> list[int]:
        """The other numbers of neighbours that the score is recorded for."""
        return [k for k in KS if k <= 2 * len(self.support_indices)]

    def _indices_of(self, metric: str) -> Tensor:
        return subset(self.splits.test, self.recipe.eval.aa_examples) if metric == "aa" else self.indices

    @cached_property
    def _weights_digest(self) -> str:
        return report.digest(self.network.state_dict().values())

    @cached_property
    def _test_digest(self) -> str:
        return report.digest([self.splits.test.images, self.splits.test.labels, self.indices])

    @cached_property
    def _train_digest(self) -> str:
        return report.digest([self.splits.train.images, self.splits.train.labels, self.support_indices])

    # --- accuracies -----------------------------------------------------------------------------------------

    def _accuracy(self, metric: str, keep_images: bool = False) -> Outcomes:
        section = self.recipe.eval
        pgd = attack(threat(section, metric, self.splits.classes))
        return accuracy(
            self.network, self.splits.test, self.indices, section.batch_size, self.device, pgd, section.seed, metric,
            keep_images=keep_images, poll=self.poll,
        )  # fmt: skip

    @cached_property
    def perturbed(self) -> Outcomes:
        """PGD-20 on the test set; its images are kept if another metric needs them."""
        return self._accuracy("pgd20", keep_images=self.recipe.eval.topology or self.standard is not None)

    def state_path(self, metric: str) -> Path:
        """Where an unfinished evaluation keeps its progress."""
        return report.path(self.rundir, self.checkpoint["name"], metric, "state")

    def _autoattack(self) -> Measured:
        section = self.recipe.eval
        indices = self._indices_of("aa")
        test = self.splits.test
        labels = test.labels[indices].cpu()
        eps = threat(section, "aa", self.splits.classes).eps
        assert eps is not None
        self.rundir.evaluations.mkdir(parents=True, exist_ok=True)
        identity = repr(sorted(self.settings("aa").items()))
        result = autoattack(
            self.network, images_of(test, indices, torch.device("cpu")), labels, eps=eps, seed=section.seed,
            batch_size=section.batch_size, device=self.device,
            state=StateFile(self.state_path("aa"), identity), poll=self.poll,
        )  # fmt: skip
        outcomes = Outcomes(indices, labels, result.predictions)
        found = {
            "value": outcomes.percent, "seconds": round(result.seconds, 3), "survivors": result.survivors,
            "standard": result.form.standard, "warnings": result.warnings,
        }  # fmt: skip
        return found, outcomes

    # --- features -------------------------------------------------------------------------------------------

    @cached_property
    def support(self) -> tuple[Tensor, Tensor]:
        """Features [S, D] and labels [S] of training images, natural and under PGD-20 against this network."""
        section = self.recipe.eval
        pgd = attack(threat(section, "pgd20", self.splits.classes))
        features, labels = [], []
        for made_by in (None, pgd):
            for batch in batches(
                self.network, self.splits.train, self.support_indices, section.batch_size, self.device,
                made_by, section.seed, "topology-support", self.poll,
            ):  # fmt: skip
                features.append(batch.output.features.float())
                labels.append(batch.y)
        return torch.cat(features), torch.cat(labels)

    def _topology_score(self, metric: str) -> Measured:
        section, test = self.recipe.eval, self.splits.test
        everything = torch.arange(len(self.indices))
        queries = self._features(self.network, adversarial=metric == "topo_robust", positions=everything)
        features, labels = self.support
        voted = knn_predict_each(
            features, labels, queries, {self.k, *self.ks}, section.topology_distance, poll=self.poll
        )
        expected = test.labels[self.indices].cpu()
        outcomes = {k: Outcomes(self.indices, expected, predictions.cpu()) for k, predictions in voted.items()}
        by_k = {str(k): outcomes[k].percent for k in self.ks}
        return {"value": outcomes[self.k].percent, "by_k": by_k}, outcomes[self.k]

    def _features(self, network: nn.Module, *, adversarial: bool, positions: Tensor) -> Tensor:
        """Features [m, D] of the test images at `positions` [m] in `indices`, natural or as PGD-20 made them."""
        parts = []
        for part in torch.split(positions, self.recipe.eval.batch_size):
            self.poll()
            if adversarial:
                assert self.perturbed.images is not None
                x = self.perturbed.images[part].to(self.device)
            else:
                x = images_of(self.splits.test, self.indices[part], self.device)
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                parts.append(network(x).features.float())
        return torch.cat(parts)

    def _l_tp(self) -> dict[str, Any]:
        """Mean of L_TP, in its default reading, over full batches of the test set.

        The examples are shuffled, in the same way for every run: some data sets are stored class by class, and a
        batch of one class has another neighbourhood graph than those of training.
        """
        assert self.standard is not None
        order = torch.randperm(len(self.indices), generator=randomness.generator("cpu", 0, "l_tp"))
        parts = [part for part in torch.split(order, L_TP_BATCH) if len(part) == min(L_TP_BATCH, len(order))]
        losses = []
        for part in parts:
            standard = self._features(self.standard, adversarial=False, positions=part)
            losses.append(topology_loss(standard, self._features(self.network, adversarial=True, positions=part)))
        return {"value": float(torch.stack(losses).mean()), "batches": len(losses)}
