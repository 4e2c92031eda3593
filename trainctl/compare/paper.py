"""The published numbers beside a pair: Tables 1-12 of Mi et al. (BMVC 2024), for runs of the same protocol only."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLES = Path(__file__).with_name("paper_tables.toml")

# Main tables first: the ablations repeat some of their rows, and the labels of Table 8 are doubtful.
_ORDER = (1, 2, 5, 6, 7, 12, 3, 11, 8)
_OWN_NAMES = {("awp", "at"): "at-awp", ("las", "trades"): "las-trades", ("ecas", "at"): "ecas", ("fat", "at"): "fat"}
_METRICS = ("natural", "pgd20", "cw20", "aa", "topo_natural", "topo_robust")
_VARIANTS = {"joint": "train", "prime": "train-prime", "star": "train-star"}
_EPS = {"lbgat": 0.031, "las": 8 / 255}
_EPOCHS = {"lbgat": 100, "las": 110}


@lru_cache(maxsize=1)
def tables() -> dict[str, Any]:
    """The content of paper_tables.toml."""
    import tomli

    return tomli.loads(TABLES.read_text(encoding="utf-8"))


def published(baseline: dict[str, Any], train: dict[str, Any]) -> dict[str, Any] | None:
    """The rows of the paper for a pair of recipes (dotted keys), or None if it has none like them.

    They match by data set, protocol and its own eps, architectures of M' and M, method, and TRAIN's variant. The two
    rows come from one table; where it has no +TRAIN row like this one, that of the baseline stands alone. What else
    differs from the paper's settings is said in "notes".
    """
    if not _own_eps(baseline) or not _own_eps(train):
        return None
    for table in _ORDER:
        after = _row(table, train, _variant(train))
        if after is not None:
            return _entry(table, _row(table, baseline, ""), after, train)
    return published_alone(baseline)


def published_alone(recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The same for runs without a partner; their row is "train" if they are +TRAIN, else "baseline"."""
    if not _own_eps(recipe):
        return None
    enabled = recipe.get("topology.enabled") is True
    for table in _ORDER:
        row = _row(table, recipe, _variant(recipe) if enabled else "")
        if row is not None:
            return _entry(table, None, row, recipe) if enabled else _entry(table, row, None, recipe)
    return None


def _entry(
    table: int, before: dict[str, Any] | None, after: dict[str, Any] | None, recipe: dict[str, Any]
) -> dict[str, Any]:
    own = after if after is not None else before
    return {
        "table": table,
        "protocol": str(recipe.get("eval.protocol")),
        "source": f"{tables()['source']['title']}, arXiv {tables()['source']['arxiv']}",
        "baseline": before and _shown(before),
        "train": after and _shown(after),
        # What quoted rows were trained with is not known.
        "notes": [] if own is None or own["quoted_from"] else _notes(recipe),
    }


def _variant(recipe: dict[str, Any]) -> str:
    return _VARIANTS.get(str(recipe.get("topology.variant", "joint")), "")


def _row(table: int, recipe: dict[str, Any], train: str) -> dict[str, Any] | None:
    """The first row of a table that fits a recipe."""
    for row in tables()["rows"]:
        if (
            row["table"] == table
            and row["train"] == train
            and row["base"] == _base(recipe)
            and row["dataset"] == recipe.get("data.dataset")
            and row["protocol"] == recipe.get("eval.protocol")
            and _same_architecture(row["backbone"], recipe.get("model.arch"))
            and (row["teacher"] in ("", "unstated") or _same_architecture(row["teacher"], recipe.get("standard.arch")))
        ):
            return dict(row)
    return None


def _base(recipe: dict[str, Any]) -> str:
    """The paper's name of a method with its terms; LBGAT is something that is added to AT, ALP or TRADES."""
    name, base = str(recipe.get("method.name")), str(recipe.get("method.base", ""))
    if name == "lbgat":
        name = f"{base}+lbgat"
    elif base:
        name = _OWN_NAMES.get((name, base), f"{name}-{base}")
    return "+".join([name, *dict.fromkeys(key.split(".")[1] for key in recipe if key.startswith("terms."))])


def _same_architecture(printed: str, arch: object) -> bool:
    # The paper says MobileNetV3 without its size.
    return arch == printed or (printed == "mobilenetv3" and arch == "mobilenetv3-large")


def _own_eps(recipe: dict[str, Any]) -> bool:
    eps = recipe.get("eval.eps", 0.0)
    own = _EPS.get(str(recipe.get("eval.protocol")), math.nan)
    return eps == 0 or (isinstance(eps, float) and math.isclose(eps, own, rel_tol=1e-9))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    kept = {key: row[key] for key in ("label", "quoted_from", "teacher", "note") if row.get(key)}
    return kept | {metric: float(row[metric]) for metric in _METRICS if metric in row}


def _notes(recipe: dict[str, Any]) -> list[str]:
    """Where these runs leave the paper's settings."""
    cifar10 = recipe.get("data.dataset") == "cifar10"
    wanted: dict[str, Any] = {
        "schedule.epochs": _EPOCHS[str(recipe.get("eval.protocol"))],
        "optim.batch_size": 128,
    }
    if recipe.get("method.name") == "lbgat":
        wanted["method.form"] = "paper"  # its own rows are eq. 15 and 16, not the loss of LBGAT's code
    if recipe.get("topology.enabled") is True:
        wanted |= {"topology.weight": 5.0 if cifar10 else 20.0, "topology.ramp": not cifar10}
    wrong = {key: value for key, value in wanted.items() if key in recipe and recipe[key] != value}
    return [f"{key} is {value} in the paper, {recipe[key]} here" for key, value in wrong.items()]
