"""Which rows of a growing file are free: runs them are handed out, given back, and joined to neighbours."""

from __future__ import annotations

import bisect


class Extents:
    """Rows of a file, in runs. First fit; where nothing fits, the file grows."""

    def __init__(self) -> None:
        self.end = 0
        """One past the last row that was ever handed out and not given back at the end."""
        self._begins: list[int] = []
        self._lengths: list[int] = []

    @property
    def free(self) -> int:
        """Rows before the end that nobody has."""
        return sum(self._lengths)

    def take(self, count: int) -> int:
        """First of `count` rows that nobody has, count > 0."""
        for place, length in enumerate(self._lengths):
            if length >= count:
                begin = self._begins[place]
                if length == count:
                    del self._begins[place], self._lengths[place]
                else:
                    self._begins[place] += count
                    self._lengths[place] -= count
                return begin
        begin, self.end = self.end, self.end + count
        return begin

    def give(self, begin: int, count: int) -> None:
        """These rows, handed out before, are free again."""
        place = bisect.bisect(self._begins, begin)
        if place < len(self._begins) and begin + count == self._begins[place]:
            count += self._lengths[place]
            del self._begins[place], self._lengths[place]
        if place and self._begins[place - 1] + self._lengths[place - 1] == begin:
            place -= 1
            begin, count = self._begins[place], self._lengths[place] + count
            del self._begins[place], self._lengths[place]
        if begin + count == self.end:
            self.end = begin
            return
        self._begins.insert(place, begin)
        self._lengths.insert(place, count)
