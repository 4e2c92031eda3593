"""Round ticks for an axis, and how numbers are written beside it."""

from __future__ import annotations

import math

from trainctl.cli.words import duration

ROUND = (1.0, 2.0, 5.0, 10.0)
SECONDS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten from `low` to `high`."""
    if not most or not low < high:
        return [low] * bool(most)
    least = (high - low) / most
    power = 10.0 ** math.floor(math.log10(least)) if least > 1e-300 else least
    for step in (power * each for each in (*ROUND, 20.0)):
        found = _multiples(low, high, step)
        if len(found) <= most:
            return found
    return []


def time_ticks(low: float, high: float, most: int) -> list[float]:
    """The same for seconds, in steps that are round on a clock."""
    for step in SECONDS if high - low >= 2 else ():
        if (high - low) / step < 10 * most and len(found := _multiples(low, high, float(step))) <= most:
            return found
    return ticks(low, high, most)


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten between the logarithms `low` and `high`, and if there are few of them 2 and 5 times those too.

    Given and returned are logarithms to the base ten.
    """
    powers = range(math.floor(low), math.ceil(high) + 1)
    for factors in ((1, 2, 5), (1,)):
        found = [power + math.log10(factor) for power in powers for factor in factors]
        found = [each for each in found if low <= each <= high]
        if len(found) <= most:
            return found if len(found) > 1 else ticks(low, high, min(most, 3))
    return found[:: -(-len(found) // most)] if most else []


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] if last - first < 1000 else [low] * 1001


def label(value: float, step: float = 0.0) -> str:
    """A tick's number in at most six characters, with as many decimals as neighbours `step` apart need."""
    if abs(value) < max(1e-99, abs(step) * 1e-6):
        return "0"
    size = abs(value)
    if size >= 1e5 or size < 1e-3:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else max(0, 3 - len(str(int(size))))
    return f"{value:.{decimals}f}"[:6].rstrip(".")


def x_label(value: float, unit: str, step: float = 0.0) -> str:
    """The same for x: a time as 1:05, a count of up to seven digits whole, of more as 12.5M."""
    if unit == "time":
        return duration(value) if step >= 1 or not step else f"{value:.{max(1, -math.floor(math.log10(step)))}f}s"
    if abs(value) >= 1e7:
        return f"{value / 1e6:g}M" if abs(value) < 1e10 else f"{value:.1e}"
    return str(int(value)) if value == int(value) else f"{value:.6g}"


def number(value: float) -> str:
    """A value in four significant digits, for the read-out."""
    return f"{value:.4g}"
