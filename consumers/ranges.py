"""A set of integers kept as disjoint ranges: sequences are gapless, so a whole episode is usually one range."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from schemas.events import Range


class RangeSet:
    """Integers as sorted, disjoint, non-adjacent closed ranges."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        for first, last in ranges:
            self.add(first, last)

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> RangeSet:
        """The set that an event lists."""
        return cls((r.first, r.last) for r in ranges)

    def add(self, first: int, last: int | None = None) -> None:
        """Add every integer from `first` to `last`, both included; `last` defaults to `first`."""
        last = first if last is None else last
        # Merge with every range that overlaps or touches [first, last].
        low = bisect_right(self._firsts, first) - 1
        if low < 0 or self._lasts[low] < first - 1:
            low += 1
        high = low
        while high < len(self._firsts) and self._firsts[high] <= last + 1:
            first = min(first, self._firsts[high])
            last = max(last, self._lasts[high])
            high += 1
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def discard(self, value: int) -> None:
        """Take one integer out, if it is in."""
        at = bisect_right(self._firsts, value) - 1
        if at < 0 or value > self._lasts[at]:
            return
        first, last = self._firsts[at], self._lasts[at]
        parts = [(low, high) for low, high in ((first, value - 1), (value + 1, last)) if low <= high]
        self._firsts[at : at + 1] = [low for low, _ in parts]
        self._lasts[at : at + 1] = [high for _, high in parts]

    def update(self, other: RangeSet) -> None:
        """Add every integer of another set."""
        for first, last in other:
            self.add(first, last)

    def without(self, other: RangeSet) -> RangeSet:
        """The integers of this set that are not in another."""
        out = RangeSet()
        for low, high in self:
            at = low
            for first, last in other:
                if last < at:
                    continue
                if first > high:
                    break
                if first > at:
                    out.add(at, first - 1)
                at = max(at, last + 1)
            if at <= high:
                out.add(at, high)
        return out

    def common(self, other: RangeSet) -> RangeSet:
        """The integers that are in both sets."""
        return self.without(self.without(other))

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self._firsts, value) - 1
        return at >= 0 and value <= self._lasts[at]

    def covers(self, first: int, last: int) -> bool:
        """Whether every integer from `first` to `last` is in the set; an empty stretch always is."""
        if last < first:
            return True
        at = bisect_right(self._firsts, first) - 1
        return at >= 0 and last <= self._lasts[at]

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any integer from `first` to `last` is in the set."""
        at = bisect_right(self._firsts, last) - 1
        return at >= 0 and self._lasts[at] >= first

    def count(self, first: int | None = None, last: int | None = None) -> int:
        """How many integers are in the set, or in its part from `first` to `last`."""
        total = 0
        for low, high in self:
            start = low if first is None else max(low, first)
            stop = high if last is None else min(high, last)
            total += max(0, stop - start + 1)
        return total

    @property
    def max(self) -> int | None:
        """The largest integer; None when empty."""
        return self._lasts[-1] if self._lasts else None

    def as_events(self) -> tuple[Range, ...]:
        """The set as an event lists it."""
        return tuple(Range(first=first, last=last) for first, last in self)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"
