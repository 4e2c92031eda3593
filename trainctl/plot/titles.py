"""Metrics as headings of panels and charts."""

from __future__ import annotations

from trainctl.plot.series import is_selection

TITLES = {
    "loss": "loss",
    "loss_robust": "robust loss",
    "loss_topology": "topology loss λ(t)·L_TP",
    "loss_standard": "loss of the standard model",
    "train_natural": "training, natural",
    "train_adversarial": "training, adversarial",
    "train_standard": "training, standard model",
    "l_tp": "L_TP",
    "lr": "learning rate",
}


def title(metric: str) -> str:
    """`validation_pgd10` as `validation, pgd10`, `loss_rkd` as `loss of rkd`; an unknown one as it is."""
    head, _, rest = metric.partition("_")
    if is_selection(metric):
        return f"{head}, {rest}"
    return TITLES.get(metric, f"loss of {rest}" if head == "loss" and rest else metric)
