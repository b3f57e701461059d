"""What repeated measurements say."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and order statistics between which the true median lies with 95 % (of fewer than 6: all values)."""
    ordered = sorted(values)
    count = len(ordered)
    # The number of values below the median is binomial; normal approximation, rounded outwards.
    reach = int(np.ceil(0.98 * np.sqrt(count) + 0.5))
    low, high = max(0, count // 2 - reach), min(count - 1, (count - 1) // 2 + reach)
    return statistics.median(ordered), ordered[low], ordered[high]
