"""Means with their intervals, and the time at which success reaches a threshold. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Student's t at 97.5 %, for 1 to 30 degrees of freedom.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_DRAWS = 4000
NEVER = math.inf
"""Time of what did not happen in the time that was looked at."""

Curve = Sequence[tuple[float, float]]
"""Minute and success, from minute 0 on."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of n values; `half` is half of its 95 % interval (Student's t), NaN for a single one."""

    value: float
    half: float
    n: int


def mean(values: Sequence[float]) -> Mean:
    """Over seeds. Raises statistics.StatisticsError for none."""
    n, value = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(value, math.nan, 1)
    t = _T[n - 2] if n - 2 < len(_T) else 1.96
    return Mean(value, t * statistics.stdev(values) / math.sqrt(n), n)


def time_to(curve: Curve, threshold: float) -> float:
    """First minute at which the straight lines through the curve's points reach the threshold, or NEVER."""
    before: tuple[float, float] | None = None
    for minute, success in curve:
        if success >= threshold:
            if before is None:
                return minute
            share = (threshold - before[1]) / (success - before[1])
            return before[0] + share * (minute - before[0])
        before = minute, success
    return NEVER


def mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Mean of curves with the same minutes."""
    return [(points[0][0], statistics.fmean(p[1] for p in points)) for points in zip(*curves, strict=True)]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with the 2.5 and 97.5 % quantiles of its bootstrap; NEVER and NaN are possible."""

    value: float
    low: float
    high: float


def bootstrap(seeds: Sequence[int], estimate: Callable[[Sequence[int]], float]) -> Interval:
    """Resample seeds with replacement (4,000 times, always the same draws); an estimate of NaN is not counted.

    Bounds are NaN for a single seed.
    """
    if len(seeds) == 1:
        return Interval(estimate(seeds), math.nan, math.nan)
    random = np.random.default_rng(0)
    drawn = [estimate([seeds[i] for i in random.integers(len(seeds), size=len(seeds))]) for _ in range(_DRAWS)]
    known = sorted(value for value in drawn if not math.isnan(value))
    if not known:
        return Interval(estimate(seeds), math.nan, math.nan)
    low, high = known[int(0.025 * (len(known) - 1))], known[math.ceil(0.975 * (len(known) - 1))]
    return Interval(estimate(seeds), low, high)


def time_to_threshold(curves: Mapping[int, Curve], threshold: float) -> Interval:
    """When the mean over seeds reaches it."""
    return bootstrap(list(curves), lambda seeds: time_to(mean_curve([curves[s] for s in seeds]), threshold))


def speed_up(slow: Mapping[int, Curve], fast: Mapping[int, Curve], threshold: float) -> Interval:
    """How many times sooner the mean of `fast` reaches it; the same seeds are drawn for both.

    NEVER where only `slow` never does, 0 where only `fast` never does, NaN where neither does.
    """

    def estimate(seeds: Sequence[int]) -> float:
        late = time_to(mean_curve([slow[s] for s in seeds]), threshold)
        soon = time_to(mean_curve([fast[s] for s in seeds]), threshold)
        if late == NEVER and soon == NEVER:
            return math.nan
        return 0.0 if soon == NEVER else NEVER if late == NEVER else late / soon if soon else math.nan

    common = sorted(set(slow) & set(fast))
    return bootstrap(common, estimate) if common else Interval(math.nan, math.nan, math.nan)


def minutes(curves: Sequence[Curve]) -> npt.NDArray[np.float64]:
    """Minutes of the points, float64[points]."""
    return np.array([minute for minute, _ in curves[0]])
