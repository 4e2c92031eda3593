"""Smoothing of a curve for the eye."""

from __future__ import annotations

from collections.abc import Sequence

SHARES = (0.0, 0.01, 0.03, 0.1)
"""Half-lives to choose from, as shares of the x range that is shown; 0 is none."""


def smooth(points: Sequence[tuple[float, float]], half_life: float) -> tuple[tuple[float, float], ...]:
    """The exponential moving average of points (x, y) with x ascending, at the same x.

    A point counts half as much each time x has moved on by `half_life`, whatever the spacing:
    s(i) = sum over j <= i of 2^(-(x(i) - x(j)) / half_life) y(j), divided by the sum of the same weights. The division
    makes the average right from the first point on. A half-life of 0 changes nothing.
    """
    if half_life <= 0:
        return tuple(points)
    smoothed = []
    total = weight = 0.0
    before = points[0][0] if points else 0.0
    for x, y in points:
        kept = 2.0 ** (-(x - before) / half_life)
        total, weight, before = total * kept + y, weight * kept + 1.0, x
        smoothed.append((x, total / weight))
    return tuple(smoothed)
