"""Events as lines for people, printed into stdout.log. Nothing reads them back: the truth is events.jsonl."""

from __future__ import annotations

import time
from typing import Any

from engine.options import readable

SHOWN = ("train_natural", "train_adversarial", "validation_", "test_")


def say(event: str, fields: dict[str, Any]) -> None:
    """Print one event, if it is worth a line."""
    text = sentence(event, fields)
    if text:
        print(time.strftime("%H:%M:%S"), text, flush=True)


def sentence(event: str, fields: dict[str, Any]) -> str:
    """What `event` says in a line; empty for the events that come too often."""
    if event == "start":
        twin = " + TRAIN" if fields["topology"] else ""
        return (
            f"{fields['method']}{twin} on {fields['dataset']}: {fields['train']} training and {fields['test']} test "
            f"images, {fields['parameters']:,} parameters, {fields['epochs']} epochs of {fields['steps_per_epoch']} "
            f"steps on {fields['device']}"
        )
    if event == "epoch":
        accuracies = [f"{key} {value:.2f}" for key, value in fields.items() if key.startswith(SHOWN)]
        shown = ("loss", "loss_topology", *(f"loss_{term}" for term in readable("Term")), "loss_standard")
        losses = [f"{key} {fields[key]:.4f}" for key in shown if key in fields]
        before = "pretraining, " if fields["stage"] == "pretrain" else ""
        where = f"{before}epoch {fields['epoch']}/{fields['epochs']}"
        return f"{where}: {', '.join([*losses, *accuracies])} ({fields['seconds']:.1f} s)"
    if event == "eval":
        return f"{fields['checkpoint']}: {fields['metric']} {fields['value']:.3f} (n = {fields['n']})"
    if event == "stage":
        return f"stage: {fields['stage']}"
    if event == "warning":
        return f"warning: {fields['message']}"
    if event == "end":
        return f"{fields['status']}: {fields['reason']}" if fields["reason"] else str(fields["status"])
    return ""
