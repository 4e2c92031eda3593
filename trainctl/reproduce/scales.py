"""What a row of the paper means here: a recipe and what is set in it, at one of three scales.

    full    the paper's own setting
    small   the same data set and method with a ResNet-18 for 30 epochs: hours on one GPU
    tiny    the digits recipes as they are: about a minute a run on one core

A row that stands in several tables, or under equal settings in two rows, is one run. So it is evaluated with what any
of them prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from engine.recipe import Recipe, own_options
from trainctl.recipes.load import resolve
from trainctl.recipes.plan import pair_of
from trainctl.reproduce.rows import TABLES, TIMING, Row, rows

Scale = Literal["full", "small", "tiny"]
SEEDS = {"full": "1", "small": "1", "tiny": "0-2"}

VARIANTS = {"train": "joint", "train-prime": "prime", "train-star": "star"}
# Methods that are compared in the settings of their own authors; the tables evaluate them under their protocol.
AS_PUBLISHED = ("mart", "fat", "gairat", "at-awp", "sat", "ecas", "las-trades")
SMALL_EPOCHS = 30
# What stands for the two networks that Table 8 compares as M.
STANDARD = {
    "full": {"resnet-18": "resnet-18", "wrn-34-10": "wrn-34-10"},
    "small": {"resnet-18": "resnet-18", "wrn-34-10": "wrn-16-4"},
    "tiny": {"resnet-18": "small-cnn", "wrn-34-10": "wrn-10-1"},
}
# Options of methods that count epochs. gate_rises counts them too where the gate rises in every epoch.
EPOCHS = ("tolerance_epoch", "tolerance_every", "lam_epoch", "begin_epoch", "gate_epoch", "gate_every", "warmup")


@dataclass(frozen=True)
class Experiment:
    """A recipe's name, and values for its dotted keys."""

    recipe: str
    settings: dict[str, Any]

    @property
    def overrides(self) -> tuple[str, ...]:
        """The settings as --set takes them."""
        return tuple(f"{key}={text(value)}" for key, value in self.settings.items())


def text(value: Any) -> str:
    """A value as --set takes it, strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def experiment(row: Row, scale: Scale) -> Experiment:
    """What `row` means at `scale`: settings that the recipe has anyway are left out."""
    wanted = _wanted(row, scale)
    found = _needed(wanted)
    if row.table == TIMING:  # some steps are taken, and nothing is evaluated
        return found
    pair = _pair(found)
    family = [(other, like) for other, like, its in _everything(scale) if its == pair]
    printed = {metric for other, like in family if like == found for metric in other.published}
    settings = dict(found.settings)
    settings["eval.attacks"] = [metric for metric in ("pgd20", "cw20", "aa") if metric in printed]
    # Scores cost little, and who has them is no twin, for `compare`, of who has them not. AutoAttack costs too much.
    settings["eval.topology"] = any("topo_natural" in other.published for other, _ in family)
    if scale == "small":
        settings |= _shortened(resolve(found.recipe, found.overrides).recipe)
        settings["eval.aa_examples"] = 1000
    return _needed(Experiment(found.recipe, settings))


def _wanted(row: Row, scale: Scale) -> Experiment:
    """All that `row` says of how it was trained."""
    recipe, settings = _digits(row) if scale == "tiny" else _recipe(row)
    settings |= _networks(row, scale)
    if row.batch_size is not None:
        settings["optim.batch_size"] = row.batch_size
    if row.train or row.lambda_ramp is not None:  # lambda = 0 is TRADES, with an M to measure L_TP against
        settings["topology.enabled"] = True
    if row.train not in ("", "train"):
        settings["topology.variant"] = VARIANTS[row.train]
    if row.lambda_ramp is not None:
        settings |= {"topology.weight": row.lambda_ramp, "topology.ramp": True}
    return Experiment(recipe, settings)


def _pair(found: Experiment) -> str:
    """The group of its baseline."""
    return pair_of(resolve(found.recipe, found.overrides).recipe, found.recipe)


def _needed(wanted: Experiment) -> Experiment:
    """The same without what the recipe says anyway."""
    own = _own(wanted.recipe)
    return Experiment(wanted.recipe, {key: value for key, value in wanted.settings.items() if own.get(key) != value})


@cache
def _own(recipe: str) -> dict[str, Any]:
    """The values of a recipe by dotted key."""
    table = resolve(recipe).recipe.model_dump()
    parts = {section: part for section, part in table.items() if isinstance(part, dict)}
    return {f"{section}.{key}": value for section, part in parts.items() for key, value in part.items()}


@cache
def _everything(scale: Scale) -> tuple[tuple[Row, Experiment, str], ...]:
    """Every row of a table that is evaluated, what it means, and the group of its baseline."""
    evaluated = [row for table in TABLES if table != TIMING for row in rows(table)]
    found = [_needed(_wanted(row, scale)) for row in evaluated]
    return tuple(zip(evaluated, found, map(_pair, found), strict=True))


def _recipe(row: Row) -> tuple[str, dict[str, Any]]:
    base, _, added = row.base.partition("+")
    las = "-las" if row.protocol == "las" else ""
    if row.backbone == "mobilenetv3":
        return f"{row.dataset}-{base}-mobilenetv3", {}
    if base in AS_PUBLISHED:
        return f"{row.dataset}-{base}", {"eval.protocol": row.protocol}
    if added == "lbgat":
        stem = f"{row.dataset}-lbgat-{base}"
        if row.quoted_from:
            return stem + las, {}
        return (stem + las, {"method.form": "paper", "standard.strides": "standard"}) if las else (f"{stem}-paper", {})
    return f"{row.dataset}-{base}-{added}" if added else f"{row.dataset}-{base}{las}", {}


def _digits(row: Row) -> tuple[str, dict[str, Any]]:
    base, _, added = row.base.partition("+")
    if row.backbone == "mobilenetv3":
        # AutoAttack takes this network a second an image and checkpoint on one core.
        return f"digits-{base}-mobilenetv3", {"eval.aa_examples": 30}
    if added == "lbgat":
        return f"digits-lbgat-{base}", {} if row.quoted_from else {"method.form": "paper"}
    return f"digits-{base}-{added}" if added else f"digits-{base}", {}


def _networks(row: Row, scale: Scale) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if row.base == "standard":
        settings["model.arch"] = STANDARD[scale][row.backbone]
    elif scale == "small" and row.backbone != "mobilenetv3":
        settings["model.arch"] = "resnet-18"
    if row.teacher in STANDARD[scale]:
        settings["standard.arch"] = STANDARD[scale][row.teacher]
    return settings


def _shortened(recipe: Recipe) -> dict[str, Any]:
    """All that counts epochs, in proportion to SMALL_EPOCHS."""

    def scaled(epochs: int) -> int:
        return max(1, round(epochs * SMALL_EPOCHS / recipe.schedule.epochs))

    settings: dict[str, Any] = {
        "schedule.epochs": SMALL_EPOCHS,
        "schedule.milestones": [scaled(epoch) for epoch in recipe.schedule.milestones],
    }
    if recipe.topology.enabled and recipe.topology.ramp_period:
        settings["topology.ramp_period"] = scaled(recipe.topology.ramp_period)
    own = own_options(recipe, "method")
    settings |= {f"method.{key}": scaled(own[key]) for key in EPOCHS if own.get(key)}  # 0 is no epoch but a switch
    if own.get("gate_every") == 1:
        settings["method.gate_rises"] = scaled(own["gate_rises"])
    return settings
