"""Means, intervals and times of curves."""

import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.paper.stats import NEVER, bootstrap, mean, mean_curve, speed_up, time_to, time_to_threshold

# Of 200 episodes.
SHARE = st.integers(0, 200).map(lambda count: count / 200)
SHARES = st.lists(SHARE, min_size=2, max_size=12)


def test_an_interval_is_students() -> None:
    # scipy.stats.t.interval(0.95, 3, loc=2.5, scale=sem([1, 2, 3, 4])) = (0.4457, 4.5543)
    found = mean([1.0, 2.0, 3.0, 4.0])
    assert (found.value - found.half, found.value + found.half) == pytest.approx((0.4457, 4.5543), abs=1e-3)
    assert math.isnan(mean([1.0]).half)


@given(SHARES, SHARE)
def test_the_time_is_the_first_at_which_the_line_is_at_the_threshold(
    shares: list[float], threshold: float
) -> None:
    curve = [(15.0 * number, share) for number, share in enumerate(shares)]
    minute = time_to(curve, threshold)
    if minute == NEVER:
        assert max(shares) < threshold
        return
    before = math.ceil(minute / 15.0 - 1e-9)
    assert all(share < threshold for share in shares[:before])
    assert shares[before] >= threshold


def test_the_time_lies_between_two_evaluations_in_proportion() -> None:
    assert time_to([(0, 0.5), (15, 0.7), (30, 0.9)], 0.8) == pytest.approx(22.5)
    assert time_to([(0, 0.9)], 0.8) == 0
    assert time_to([(0, 0.5), (15, 0.7)], 0.8) == NEVER


def test_speed_up_is_of_mean_curves_and_says_what_is_not_known() -> None:
    slow = {seed: [(0.0, 0.5), (60.0, 0.7 + 0.01 * seed), (120.0, 0.9)] for seed in (1, 2, 3)}
    fast = {seed: [(0.0, 0.5), (60.0, 0.9 + 0.01 * seed), (120.0, 0.9)] for seed in (1, 2, 3)}
    late, soon = time_to_threshold(slow, 0.8), time_to_threshold(fast, 0.8)
    found = speed_up(slow, fast, 0.8)
    assert late.low <= late.value <= late.high
    assert found.value == pytest.approx(late.value / soon.value)
    assert found.low <= found.value <= found.high
    assert math.isnan(speed_up({1: slow[1]}, {1: fast[1]}, 0.8).low)
    assert math.isnan(speed_up({1: slow[1]}, {2: fast[2]}, 0.8).value)
    flat = {seed: [(0.0, 0.5), (60.0, 0.5), (120.0, 0.5)] for seed in (1, 2, 3)}
    assert speed_up(flat, fast, 0.8).value == NEVER
    assert speed_up(slow, flat, 0.8).value == 0
    assert math.isnan(speed_up(flat, flat, 0.8).value)
    assert mean_curve(list(flat.values())) == [(0.0, 0.5), (60.0, 0.5), (120.0, 0.5)]


@settings(deadline=None, max_examples=10)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_the_bootstrap_of_a_mean_stays_inside_the_values_and_is_the_same_each_time(values: list[float]) -> None:
    def estimate(seeds: object) -> float:
        return statistics.fmean(values[seed] for seed in seeds)  # type: ignore[attr-defined]

    found = bootstrap(range(len(values)), estimate)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == bootstrap(range(len(values)), estimate)
