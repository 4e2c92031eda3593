"""What an evaluation leaves in a run folder, and how a finished one is found again.

eval/CHECKPOINT-METRIC.csv has a row for each example: index (in the test set), label, prediction, correct (0 or 1).
eval/CHECKPOINT-METRIC.json has the settings, among them digests of the weights and of the data, and the result. It
is written last: where it stands, the evaluation is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.evaluate.accuracy import Outcomes
from engine.rundir import RunDir, replace

HEADER = "index,label,prediction,correct"
CHECKPOINTS = ("best", "last")
WHICH = ("checkpoint", "epoch", "rule")
"""Settings that name the checkpoint. What is measured depends on its weights, which have a digest of their own."""


def digest(tensors: Iterable[Tensor]) -> str:
    """A name for the content of tensors: hexadecimal, equal for equal types, shapes and values."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:32]


def write(
    rundir: RunDir,
    checkpoint: str,
    metric: str,
    settings: dict[str, Any],
    result: dict[str, Any],
    outcomes: Outcomes | None,
) -> None:
    """Store a finished evaluation. `outcomes` is None for a metric that is no accuracy."""
    rundir.evaluations.mkdir(parents=True, exist_ok=True)
    table, rows = "", 0
    if outcomes is not None:
        columns = (outcomes.indices, outcomes.labels, outcomes.predictions, outcomes.correct.int())
        lines = [",".join(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
        table, rows = "\n".join([HEADER, *lines]) + "\n", len(lines)
    _store(rundir, checkpoint, metric, {"settings": settings, "result": result, "rows": rows}, table)


def _store(rundir: RunDir, checkpoint: str, metric: str, content: dict[str, Any], table: str) -> None:
    """Write both files, that of the examples (if there is one) first."""
    if table:
        replace(path(rundir, checkpoint, metric, "csv"), table)
    replace(path(rundir, checkpoint, metric, "json"), json.dumps(content, indent=1) + "\n")


def finished(rundir: RunDir, checkpoint: str, metric: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The result stored for `metric` of `checkpoint` under equal settings; None if there is none, or it is damaged."""
    stored = _stored(rundir, checkpoint, metric, settings)
    return stored["result"] if stored else None


def take_over(rundir: RunDir, checkpoint: str, metric: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Store for `checkpoint` what was measured on the other one, if both have the same weights; None if not.

    They do where the last epoch was the best one, and AutoAttack can take as long as the training did.
    """
    for other in CHECKPOINTS:
        stored = _stored(rundir, other, metric, settings, apart=WHICH) if other != checkpoint else None
        if stored:
            table = path(rundir, other, metric, "csv").read_text() if stored["rows"] else ""
            result = {**stored["result"], "measured_on": other}
            _store(rundir, checkpoint, metric, {**stored, "settings": settings, "result": result}, table)
            return result
    return None


def _stored(
    rundir: RunDir, checkpoint: str, metric: str, settings: dict[str, Any], apart: Container[str] = ()
) -> dict[str, Any] | None:
    """What lies in the file of an evaluation, if it is whole and its settings are equal, those `apart` aside."""
    try:
        stored: dict[str, Any] = json.loads(path(rundir, checkpoint, metric, "json").read_bytes())
        had, wanted = (
            {key: value for key, value in each.items() if key not in apart}
            for each in (stored["settings"], json.loads(json.dumps(settings)))
        )
        if had != wanted:
            return None
        table = path(rundir, checkpoint, metric, "csv")
        if stored["rows"] and len(table.read_bytes().splitlines()) != stored["rows"] + 1:
            return None
        return stored if isinstance(stored["result"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def path(rundir: RunDir, checkpoint: str, metric: str, suffix: str) -> Path:
    """eval/CHECKPOINT-METRIC.SUFFIX"""
    return rundir.evaluations / f"{checkpoint}-{metric}.{suffix}"
