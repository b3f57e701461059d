"""Means, intervals and times of curves."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.paper.stats import NEVER, mean, mean_curve, speed_up, time_to, time_to_threshold

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
    never, behind = speed_up(flat, fast, 0.8), speed_up(slow, flat, 0.8)
    assert never.value == never.high == NEVER
    assert never.low == pytest.approx(120.0 / time_to_threshold(fast, 0.8, 0.975).high)
    assert behind.value == behind.low == 0
    assert behind.high == pytest.approx(time_to_threshold(slow, 0.8, 0.975).high / 120.0)
    assert math.isnan(speed_up(flat, flat, 0.8).value)
    assert mean_curve(list(flat.values())) == [(0.0, 0.5), (60.0, 0.5), (120.0, 0.5)]


# How success grows in time, and how far one seed lies from another: like what simulated fleets do.
_MINUTES = np.arange(0.0, 181.0, 15.0)
_STUDIES = 1500


def _rising(scale: float) -> npt.NDArray[np.float64]:
    rising: npt.NDArray[np.float64] = 0.69 + 0.22 * (1.0 - np.exp(-_MINUTES / scale))
    return rising


def _study(random: np.random.Generator, n: int, scale: float) -> dict[int, list[tuple[float, float]]]:
    """Curves of n seeds: each is better or worse as a whole, and each evaluation has errors of its own."""
    level = random.normal(0.0, 0.03, (n, 1))
    shares = np.clip(_rising(scale) + level + random.normal(0.0, 0.02, (n, len(_MINUTES))), 0.0, 1.0)
    return {seed: list(zip(_MINUTES.tolist(), shares[seed].tolist(), strict=True)) for seed in range(n)}


def _true_time(scale: float) -> float:
    return time_to(list(zip(_MINUTES.tolist(), _rising(scale).tolist(), strict=True)), 0.8)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_intervals_of_times_and_speed_ups_cover_the_truth_as_often_as_they_say(n: int) -> None:
    random = np.random.default_rng(n)
    late, soon = _true_time(80.0), _true_time(25.0)
    times = ratios = narrow = 0
    for _ in range(_STUDIES):
        slow, fast = _study(random, n, 80.0), _study(random, n, 25.0)
        time, ratio = time_to_threshold(slow, 0.8), speed_up(slow, fast, 0.8)
        times += time.low <= late <= time.high
        ratios += ratio.low <= late / soon <= ratio.high
        narrow += ratio.low > 1.0
    # Three standard errors of a share of 0.95 in 1,500 studies are 0.017.
    assert times / _STUDIES > 0.933
    assert ratios / _STUDIES > 0.933
    if n == 10:
        assert narrow / _STUDIES > 0.5  # wide, and yet they tell something


@given(st.lists(st.lists(SHARE, min_size=4, max_size=4), min_size=1, max_size=6), SHARE)
def test_bounds_hold_the_estimate_and_one_seed_has_none(seeds: list[list[float]], threshold: float) -> None:
    curves = {seed: [(15.0 * n, share) for n, share in enumerate(shares)] for seed, shares in enumerate(seeds)}
    found = time_to_threshold(curves, threshold)
    if len(curves) == 1:
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    else:
        assert found.low <= found.value <= found.high
    ratio = speed_up(curves, curves, threshold)
    if len(curves) > 1 and 0 < found.value < NEVER:
        assert ratio.low <= ratio.value == 1.0 <= ratio.high


def test_while_the_data_do_not_show_that_it_is_reached_there_is_no_upper_bound() -> None:
    curves = {1: [(0.0, 0.6), (60.0, 0.9)], 2: [(0.0, 0.6), (60.0, 0.78)]}
    assert time_to_threshold(curves, 0.8).value < 60.0
    assert time_to_threshold(curves, 0.8).high == NEVER
    assert speed_up(curves, {1: [(0.0, 0.6), (60.0, 1.0)], 2: [(0.0, 0.6), (60.0, 1.0)]}, 0.8).high == NEVER
