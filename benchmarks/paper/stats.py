"""Means with their intervals, and the time at which success reaches a threshold. Pure.

No interval here comes from resampling: percentiles of a bootstrap cover the truth in 43 % of cases with two seeds,
in 81 % with five, in 91 % with ten.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest
from scipy.stats import t as student

LEVEL = 0.95
"""Of all intervals that are shown."""

NEVER = math.inf
"""Time of what did not happen in the time that was looked at."""

# Minutes between those at which a curve's band is looked at; bounds are rounded away from the estimate.
_GRID = 0.1

Curve = Sequence[tuple[float, float]]
"""Minute and success, from minute 0 on."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean of n values; `half` is half of its interval (Student's t), NaN for a single one."""

    value: float
    half: float
    n: int


def mean(values: Sequence[float], level: float = LEVEL) -> Mean:
    """Over seeds. Raises statistics.StatisticsError for none."""
    n, value = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(value, math.nan, 1)
    return Mean(value, _quantile(n, level) * statistics.stdev(values) / math.sqrt(n), n)


def proportion(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's interval of a share of n > 0 trials."""
    found = binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


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
    """An estimate and its bounds; NEVER is possible for all three, and bounds of one seed are NaN."""

    value: float
    low: float
    high: float


def time_to_threshold(curves: Mapping[int, Curve], threshold: float, level: float = LEVEL) -> Interval:
    """When the mean over seeds reaches it.

    The bounds turn Student's test around (as Fieller's do): `low` is the first minute at which the threshold is
    not above the mean's interval of that minute, `high` the one after which it is below all of them. So of normal
    values they cover the time at which the true mean crosses the threshold with at least `level`, from two seeds
    on, and `high` is NEVER while the data do not show that it is reached.
    """
    value = time_to(mean_curve(list(curves.values())), threshold)
    if len(curves) == 1:
        return Interval(value, math.nan, math.nan)
    grid, low, high = _band(list(curves.values()), level)
    reached, short = np.flatnonzero(high >= threshold), np.flatnonzero(low < threshold)
    first = float(grid[max(reached[0] - 1, 0)]) if len(reached) else NEVER
    if len(short) == 0:
        return Interval(value, first, float(grid[0]))
    return Interval(value, first, NEVER if short[-1] == len(grid) - 1 else float(grid[short[-1] + 1]))


def speed_up(
    slow: Mapping[int, Curve], fast: Mapping[int, Curve], threshold: float, level: float = LEVEL
) -> Interval:
    """How many times sooner the mean of `fast` reaches it, over the seeds that both have.

    NEVER where only `slow` never does, 0 where only `fast` never does, NaN where neither does. The bounds are
    quotients of those of both times, each at half of the error (Bonferroni): `level` or more, and wide. What is
    not reached by the last minute takes longer than that, which is all that is known, and what a bound is made of.
    """
    common = sorted(set(slow) & set(fast))
    if not common:
        return Interval(math.nan, math.nan, math.nan)
    each = 1.0 - (1.0 - level) / 2.0
    late, soon = (time_to_threshold({s: of[s] for s in common}, threshold, each) for of in (slow, fast))
    value = math.nan if late.value == soon.value == NEVER else _quotient(late.value, soon.value, math.nan)
    if len(common) == 1:
        return Interval(value, math.nan, math.nan)
    last = slow[common[0]][-1][0]
    low = _quotient(min(late.low, last), soon.high, 0.0)
    return Interval(value, low, _quotient(late.high, min(soon.low, last), NEVER))


def _quotient(late: float, soon: float, unknown: float) -> float:
    """Of two times; `unknown` where it is 0/0 or ∞/∞."""
    if (late == NEVER and soon == NEVER) or (late == 0 and soon == 0):
        return unknown
    return NEVER if soon == 0 else late / soon


def _band(
    curves: Sequence[Curve], level: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Minutes, the curves' own among them, and the bounds of the mean's interval at each: float64[minutes]."""
    minutes = np.array([minute for minute, _ in curves[0]])
    grid = np.unique(np.concatenate([minutes, np.arange(minutes[0], minutes[-1], _GRID)]))
    values = np.array([np.interp(grid, minutes, [success for _, success in curve]) for curve in curves])
    middle = values.mean(axis=0)
    half = _quantile(len(curves), level) * values.std(axis=0, ddof=1) / math.sqrt(len(curves))
    return grid, middle - half, middle + half


@cache
def _quantile(n: int, level: float) -> float:
    """Student's t with n − 1 degrees of freedom, beyond which half of the error lies."""
    return float(student.ppf((1.0 + level) / 2.0, n - 1))
