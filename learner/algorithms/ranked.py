"""Numbers of which the n-th smallest is asked now and then, while some come and some go."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from learner.policies.base import Floats

# Changes that are kept apart: a share of all, so that merging them costs little for each.
_SHARE, _LEAST = 128, 4_096
# Places of −∞ and +∞ among all float32; what lies beyond is NaN.
_LOWEST, _HIGHEST = 0x007FFFFF, 0xFF800000


class Ranked:
    """A multiset of float32 values: one sorted array, and what came and went since it was sorted.

    What `at` says depends on the values only, never on the order in which they came or went.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.float32)
        self._came: list[Floats] = []
        self._went: list[Floats] = []
        self._changed = self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, values: Floats) -> None:
        """Take values in; none is NaN."""
        self._came.append(values)
        self._change(len(values), len(values))

    def remove(self, values: Floats) -> None:
        """Let values go that were taken in."""
        self._went.append(values)
        self._change(len(values), -len(values))

    def at(self, rank: int) -> float:
        """The value with `rank` smaller ones before it, from 0.

        Raises:
            IndexError: there are not so many.
        """
        if not 0 <= rank < self._count:
            raise IndexError(f"rank {rank} of {self._count} values")
        came, went = _sorted(self._came), _sorted(self._went)
        if self._changed > max(_LEAST, len(self._sorted) // _SHARE):
            self._sorted = _without(np.sort(np.concatenate((self._sorted, came)), kind="stable"), went)
            self._came, self._went, self._changed = [], [], 0
            return float(self._sorted[rank])
        self._came, self._went = [came], [went]
        # The smallest of all float32 up to which more than `rank` values lie, by halving their range.
        low, high = _LOWEST, _HIGHEST
        while low < high:
            middle = (low + high) // 2
            value = _value(middle)
            up_to = sum(
                sign * int(np.searchsorted(values, value, side="right"))
                for sign, values in ((1, self._sorted), (1, came), (-1, went))
            )
            low, high = (low, middle) if up_to > rank else (middle + 1, high)
        return float(_value(low))

    def _change(self, count: int, more: int) -> None:
        self._changed += count
        self._count += more


def _sorted(parts: list[Floats]) -> Floats:
    return np.sort(np.concatenate(parts)) if parts else np.empty(0, np.float32)


def _without(values: Floats, gone: Floats) -> Floats:
    """Sorted values less those that are gone, sorted too; of equal ones as many as are gone."""
    places = np.searchsorted(values, gone, side="left")
    nth = np.arange(len(gone)) - np.searchsorted(gone, gone, side="left")
    kept: npt.NDArray[np.bool_] = np.ones(len(values), np.bool_)
    kept[places + nth] = False
    return values[kept]


def _value(place: int) -> np.float32:
    """The float32 at a place in their order: bits of negative ones run the other way."""
    bits = place ^ 0x80000000 if place >= 0x80000000 else place ^ 0xFFFFFFFF
    return np.float32(struct.unpack("<f", struct.pack("<I", bits))[0])
