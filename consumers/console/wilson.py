"""The interval of a success rate, as the views have it."""

from __future__ import annotations

import math

_Z = 1.959963984540054


def interval(successes: int, judged: int) -> tuple[float, float] | None:
    """Wilson's 95 % interval (Wilson 1927) of a rate, as shares; None where nothing was judged."""
    if judged <= 0:
        return None
    z2 = _Z * _Z
    middle = successes + z2 / 2
    half = _Z * math.sqrt(successes * (judged - successes) / judged + z2 / 4)
    return (middle - half) / (judged + z2), (middle + half) / (judged + z2)
