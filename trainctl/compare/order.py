"""In which order the pairs of a comparison stand."""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.events import METRICS
from trainctl.compare.rows import Comparison, Pair, Side

BY = ("delta", "train", "baseline")


@dataclass(frozen=True)
class Order:
    """By which number: of `metric` ("" for none, so that they stand as they were made), of one of BY."""

    metric: str = ""
    by: str = "delta"
    worst_first: bool = False

    def apply(self, comparison: Comparison) -> Comparison:
        """The same comparison in this order; what lacks the number comes last, and equal ones stay as they were."""
        if not self.metric:
            return comparison
        pairs = sorted(comparison.pairs, key=lambda pair: self._key(self._of_pair(pair)))
        alone = sorted(comparison.alone, key=lambda side: self._key(_mean(side, self.metric)))
        return replace(comparison, pairs=tuple(pairs), alone=tuple(alone))

    def _of_pair(self, pair: Pair) -> float | None:
        if self.by == "delta":
            return pair.delta[self.metric].mean if self.metric in pair.delta else None
        return _mean(pair.train if self.by == "train" else pair.baseline, self.metric)

    def _key(self, value: float | None) -> tuple[bool, float]:
        falling = METRICS.get(self.metric, False) != self.worst_first
        return value is None, 0.0 if value is None else -value if falling else value


def _mean(side: Side, metric: str) -> float | None:
    return side.metrics[metric].mean if metric in side.metrics else None
