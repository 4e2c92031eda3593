"""Mean and spread over seeds, and the paired difference with its 95 % interval. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Values of one metric over seeds. `std` has n - 1 in its denominator and is None for n = 1."""

    mean: float | None
    std: float | None
    n: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """Mean of the differences over matched seeds and its 95 % t interval, which is None for n = 1."""

    mean: float | None
    low: float | None
    high: float | None
    n: int

    @property
    def half_width(self) -> float | None:
        """The interval is mean ± this."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def is_clear(self) -> bool:
        """True if the interval excludes zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def spread(values: Iterable[float | None]) -> Spread:
    """Mean and standard deviation; missing and non-finite values are left out of all four fields."""
    known = tuple(value for value in values if value is not None and math.isfinite(value))
    if not known:
        return Spread(None, None, 0, ())
    mean = math.fsum(known) / len(known)
    return Spread(mean, _std(known, mean), len(known), known)


def paired_difference(baseline: Mapping[Hashable, float | None], train: Mapping[Hashable, float | None]) -> Difference:
    """Difference train - baseline over the seeds (keys) for which both have a finite value."""
    seeds = [seed for seed in baseline if seed in train]
    pairs = [(baseline[seed], train[seed]) for seed in seeds]
    found = spread(after - before for before, after in pairs if before is not None and after is not None)
    if found.mean is None or found.std is None:
        return Difference(found.mean, None, None, found.n)
    half = t_quantile((1 + CONFIDENCE) / 2, found.n - 1) * found.std / math.sqrt(found.n)
    return Difference(found.mean, found.mean - half, found.mean + half, found.n)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """The value that Student's t with `freedom` degrees stays below with `probability`; ValueError outside (0, 1)."""
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile {probability} for {freedom} degrees of freedom")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while _t_cdf(high, freedom) < probability:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _t_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _std(values: tuple[float, ...], mean: float) -> float | None:
    if len(values) < 2:
        return None
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _t_cdf(t: float, freedom: int) -> float:
    """Distribution function of Student's t for t >= 0, by the finite sums of Abramowitz & Stegun 26.7.3 and 26.7.4."""
    angle = math.atan2(t, math.sqrt(freedom))
    cosine_squared = math.cos(angle) ** 2
    odd = freedom % 2
    if freedom == 1:
        inside = 2 * angle / math.pi
    else:
        term = math.cos(angle) if odd else 1.0
        total = term
        for k in range(3 if odd else 2, freedom - 1, 2):
            term *= (k - 1) / k * cosine_squared
            total += term
        inside = 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
    return 0.5 + inside / 2
