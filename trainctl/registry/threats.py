"""Threat models: what a number was measured under, how two of them differ, and how one reads.

A threat model is a flat dict of an eval event's settings. `DECISIVE` are those that must agree before two numbers may
stand in one column of a list; a comparison looks at all settings of the event.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from trainctl.registry import plain

Threat = dict[str, Any]

DECISIVE = ("norm", "eps", "step_size", "steps", "start", "n", "of", "implementation", "version")
KEYS = ("norm", "eps", "step_size", "steps", "start", "n", "of", "protocol", "implementation", "version", "checkpoint")

# How a setting reads; `eps` and `step_size` are fractions of the pixel range.
WORDS = {
    "norm": "{}",
    "eps": "ε {}",
    "step_size": "step {}",
    "steps": "{} steps",
    "start": "{} start",
    "stop": "stop {}",
    "k": "k {}",
    "distance": "{} distance",
}


def threat(settings: Mapping[str, Any]) -> Threat:
    """The `KEYS` of an eval event that have a value which a table can show."""
    found = {key: _plain(settings.get(key)) for key in KEYS}
    return {key: value for key, value in found.items() if value is not None}


def decisive(threat: Mapping[str, Any] | None) -> Threat | None:
    """What must agree within a column; None if the number came without a threat model."""
    return None if threat is None else {key: threat[key] for key in DECISIVE if key in threat}


def common(threats: Iterable[Threat]) -> Threat | None:
    """The most frequent threat model, the first of several such; None if there is none."""
    first: dict[frozenset[tuple[str, Any]], Threat] = {}
    count = Counter[frozenset[tuple[str, Any]]]()
    for found in threats:
        key = frozenset(found.items())
        first.setdefault(key, found)
        count[key] += 1
    return first[max(count, key=count.__getitem__)] if count else None


def deviation(found: Mapping[str, Any], common: Mapping[str, Any]) -> str:
    """`eps 0.2 instead of 0.25`: what of `found` is not as in `common`; "" if all is."""
    keys = [key for key in dict.fromkeys([*found, *common]) if found.get(key) != common.get(key)]
    return ", ".join(f"{key} {short(found.get(key))} instead of {short(common.get(key))}" for key in keys)


def words(entry: Mapping[str, Any]) -> str:
    """A threat model, or a whole eval event, in words: `linf, ε 0.25, step 0.025, 20 steps, …`."""
    parts = [
        form.format(_word(entry[key])) for key, form in WORDS.items() if entry.get(key) not in (None, 0, 0.0, "none")
    ]
    of = f"of {entry['of']}" if entry.get("of") else ""
    if entry.get("n") is not None:
        parts.append(" ".join(filter(None, [str(entry["n"]), of, str(entry.get("split") or ""), "images"])))
    if entry.get("implementation"):
        parts.append(f"{entry['implementation']} {entry.get('version', '')}".strip())
    if entry.get("warnings"):
        parts.append("warnings: " + "; ".join(map(str, entry["warnings"])))
    return ", ".join(parts)


def short(value: Any) -> str:
    """A setting's value in at most 40 printable characters, numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = plain.text(text)
    return text if len(text) <= 40 else text[:39] + "…"


def _plain(value: Any) -> str | int | float | bool | None:
    if isinstance(value, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return plain.integer(value) if isinstance(value, int) else plain.text(value) or None


def _word(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
