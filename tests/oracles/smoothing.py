"""The exponential moving average over irregularly spaced points, as a double sum."""

from __future__ import annotations


def average(points: list[tuple[float, float]], half_life: float) -> list[float]:
    smoothed = []
    for i in range(len(points)):
        total, weight = 0.0, 0.0
        for j in range(i + 1):
            w = 0.5 ** ((points[i][0] - points[j][0]) / half_life)
            total += w * points[j][1]
            weight += w
        smoothed.append(total / weight)
    return smoothed
