"""What an evaluation leaves in a run folder, and how a finished one is found again.

eval/CHECKPOINT-METRIC.csv has a row for each example: index (in the test set), label, prediction, correct (0 or 1).
eval/CHECKPOINT-METRIC.json has the settings, among them digests of the weights and of the data, and the result. It
is written last: where it stands, the evaluation is finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.evaluate.accuracy import Outcomes
from engine.rundir import RunDir, replace

HEADER = "index,label,prediction,correct"


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
    rows = 0
    if outcomes is not None:
        columns = (outcomes.indices, outcomes.labels, outcomes.predictions, outcomes.correct.int())
        lines = [",".join(map(str, row)) for row in zip(*(column.tolist() for column in columns), strict=True)]
        rows = len(lines)
        replace(path(rundir, checkpoint, metric, "csv"), "\n".join([HEADER, *lines]) + "\n")
    content = {"settings": settings, "result": result, "rows": rows}
    replace(path(rundir, checkpoint, metric, "json"), json.dumps(content, indent=1) + "\n")


def finished(rundir: RunDir, checkpoint: str, metric: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The result stored for `metric` of `checkpoint` under equal settings; None if there is none, or it is damaged."""
    try:
        stored = json.loads(path(rundir, checkpoint, metric, "json").read_bytes())
        if stored["settings"] != json.loads(json.dumps(settings)):
            return None
        table = path(rundir, checkpoint, metric, "csv")
        if stored["rows"] and len(table.read_bytes().splitlines()) != stored["rows"] + 1:
            return None
        result: dict[str, Any] = stored["result"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return result if isinstance(result, dict) else None


def path(rundir: RunDir, checkpoint: str, metric: str, suffix: str) -> Path:
    """eval/CHECKPOINT-METRIC.SUFFIX"""
    return rundir.evaluations / f"{checkpoint}-{metric}.{suffix}"
