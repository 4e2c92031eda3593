"""Values from a run folder's files as SQLite, JSON and a terminal can hold them; anything else counts as missing."""

from __future__ import annotations

import math
from typing import Any

from engine import events


def text(value: Any, default: str = "") -> str:
    """A string without control characters and lone surrogates, or `default` if it is none."""
    if not isinstance(value, str):
        return default
    return (
        value if value.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value)
    )


def prose(value: Any) -> str:
    """The same of what people write over several lines, whose breaks stay."""
    return "\n".join(map(text, value.split("\n"))) if isinstance(value, str) else ""


def integer(value: Any) -> int | None:
    """An integer of 64 bits."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 else None


def real(value: Any) -> float | None:
    """A float; "nan" and "inf" as events.jsonl writes them are read too."""
    if type(value) is float:  # nearly all of the millions that are asked for
        return value
    try:
        return events.number(value)
    except OverflowError:
        return None


def finite(value: float | None) -> float | None:
    """The value, or None for NaN and infinity, which JSON lacks."""
    return value if value is not None and math.isfinite(value) else None


def rank(metric: str) -> tuple[int, str]:
    """Sorts metrics in the order of the tables; unknown ones follow by name."""
    known = list(events.METRICS)
    return (known.index(metric) if metric in known else len(known)), metric


def table(value: Any) -> dict[str, Any]:
    """A dict, or {}."""
    return value if isinstance(value, dict) else {}


def dotted(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A table of tables, such as a recipe, with dotted keys: "optim.lr"."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = prefix + text(key)
        found |= dotted(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def bounded(value: Any, depth: int = 8) -> Any:
    """A value from JSON without NaN and infinity, which SQLite's JSON lacks, and not nested deeper than `depth`."""
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, dict):
        return {key: bounded(each, depth - 1) for key, each in value.items()} if depth else None
    if isinstance(value, list):
        return [bounded(each, depth - 1) for each in value] if depth else None
    return value
