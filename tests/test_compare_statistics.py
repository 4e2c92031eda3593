"""Means, spreads and intervals against SciPy and by hand."""

from __future__ import annotations

import math
import random

import pytest

from trainctl.compare.statistics import Difference, Spread, paired_difference, spread, t_quantile


def test_quantiles_of_t_are_those_of_scipy() -> None:
    from scipy.stats import t

    for freedom in (*range(1, 31), 99, 100, 101, 1000):
        for probability in (0.01, 0.4, 0.5, 0.9, 0.975, 0.995):
            assert t_quantile(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (1.5, 3), (0.9, 0)])
def test_what_is_no_quantile_is_refused(probability: float, freedom: int) -> None:
    with pytest.raises(ValueError, match="no quantile"):
        t_quantile(probability, freedom)


def test_spread_by_hand() -> None:
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, math.sqrt(7.0), 3, (1.0, 2.0, 6.0))
    assert spread([5.0]) == Spread(5.0, None, 1, (5.0,))
    assert spread([]) == Spread(None, None, 0, ())
    assert spread([None, math.nan, 4.0, math.inf, 2.0]) == Spread(3.0, math.sqrt(2.0), 2, (4.0, 2.0))


def test_the_paired_interval_is_scipys() -> None:
    from scipy.stats import ttest_rel

    draw = random.Random(1)
    baseline = {seed: draw.gauss(50, 3) for seed in range(7)}
    train = {seed: value + draw.gauss(1, 0.5) for seed, value in baseline.items()}
    found = paired_difference(baseline, train)
    interval = ttest_rel(list(train.values()), list(baseline.values())).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-10)
    assert found.n == 7


def test_only_matched_seeds_count() -> None:
    found = paired_difference({0: 1.0, 1: 2.0, 2: None, 3: math.nan, 4: 9.0}, {1: 3.0, 0: 4.0, 2: 5.0, 3: 5.0, 7: 1.0})
    assert (found.mean, found.n) == (2.0, 2)  # seeds 0 and 1: +3 and +1
    assert found.half_width == pytest.approx(12.7062 * math.sqrt(2) / math.sqrt(2), rel=1e-5)
    assert not found.is_clear


def test_one_seed_has_no_interval_and_none_has_nothing() -> None:
    assert paired_difference({0: 1.0}, {0: 2.5}) == Difference(1.5, None, None, 1)
    assert paired_difference({0: 1.0}, {1: 2.5}) == Difference(None, None, None, 0)
    assert paired_difference({0: 1.0}, {0: 2.5}).half_width is None
    assert not paired_difference({0: 1.0}, {0: 2.5}).is_clear


def test_an_interval_without_zero_is_clear() -> None:
    assert paired_difference({0: 1.0, 1: 1.0, 2: 1.1}, {0: 2.0, 1: 2.1, 2: 2.0}).is_clear
    assert paired_difference({0: 2.0, 1: 2.1, 2: 2.0}, {0: 1.0, 1: 1.0, 2: 1.1}).is_clear
