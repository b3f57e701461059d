"""Vectors of steps as runs of bytes that are never taken apart.

Slices share memory with what they were cut from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]

_NO_DATA = np.zeros(0, np.uint8)


class Vectors:
    """One vector for each step, little-endian float32 as bytes; some may be absent.

    Attributes:
        data: uint8, all bytes one after the other.
        uniform: bytes of every vector if all are known to be present and equally long; 0 if all are known to be
            absent; else None.
    """

    __slots__ = ("_count", "_offsets", "_present", "data", "uniform")

    def __init__(self, data: Bytes, uniform: int, count: int) -> None:
        """Vectors that are alike; `odd` makes others."""
        self.data = data
        self.uniform: int | None = uniform
        self._count = count
        self._offsets: Ints | None = None
        self._present: Bools | None = None

    @classmethod
    def odd(cls, data: Bytes, offsets: Ints, present: Bools | None) -> Vectors:
        """Vectors of any length: where each begins, int64[n + 1], and which are there, bool[n] (None: all)."""
        made = cls(data, 0, len(offsets) - 1)
        made.uniform, made._offsets, made._present = None, offsets, present
        return made

    @classmethod
    def of(cls, data: Bytes, offsets: Ints, present: Bools | None) -> Vectors:
        """Vectors whose uniformity is found out."""
        if len(offsets) == 1:
            return cls.odd(data, offsets, present)
        if present is not None and not present.any():
            return cls.absent(len(present))
        sizes = np.diff(offsets)
        if present is None and sizes[0] and bool((sizes == sizes[0]).all()):
            return cls(data[offsets[0] : offsets[-1]], int(sizes[0]), len(sizes))
        return cls.odd(data, offsets, present)

    @classmethod
    def absent(cls, count: int) -> Vectors:
        """`count` vectors of which none is there."""
        return cls(_NO_DATA, 0, count)

    @classmethod
    def from_values(cls, values: Sequence[bytes | None]) -> Vectors:
        """Vectors from their bytes."""
        sizes = np.fromiter((len(value or b"") for value in values), np.int64, len(values))
        present = np.fromiter((value is not None for value in values), np.bool_, len(values))
        data = np.frombuffer(b"".join(value or b"" for value in values), np.uint8)
        return cls.of(data, _starts(sizes), None if present.all() else present)

    def __len__(self) -> int:
        return self._count

    @property
    def offsets(self) -> Ints:
        """Where each vector begins in `data`, and where the last ends, int64[n + 1]."""
        if self._offsets is None:
            return np.arange(self._count + 1, dtype=np.int64) * (self.uniform or 0)
        return self._offsets

    @property
    def present(self) -> Bools | None:
        """Which vectors are there, bool[n]; None when all are."""
        return np.zeros(self._count, np.bool_) if self.uniform == 0 else self._present

    def slice(self, low: int, high: int) -> Vectors:
        """Vectors `low` to `high`, sharing memory."""
        if self.uniform is not None:
            return Vectors(self.data[low * self.uniform : high * self.uniform], self.uniform, high - low)
        present = None if self.present is None else self.present[low:high]
        return Vectors.odd(self.data, self.offsets[low : high + 1], present)

    def take(self, order: Ints) -> Vectors:
        """Vectors in another order, copied."""
        if self.uniform:
            rows = self.data.reshape(-1, self.uniform).take(order, axis=0)
            return Vectors(rows.reshape(-1), self.uniform, len(order))
        if self.uniform == 0:
            return Vectors.absent(len(order))
        sizes = self.sizes()[order]
        offsets = _starts(sizes)
        moved_by = np.repeat(self.offsets[:-1][order] - offsets[:-1], sizes)
        data = self.data[np.arange(offsets[-1]) + moved_by]
        return Vectors.of(data, offsets, None if self.present is None else self.present[order])

    def copied(self) -> Vectors:
        """The same vectors in memory of their own."""
        if self.uniform is not None:
            return Vectors(self.data.copy(), self.uniform, self._count)
        first = self.offsets[0]
        present = None if self.present is None else self.present.copy()
        return Vectors.odd(self.data[first : self.offsets[-1]].copy(), self.offsets - first, present)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the vectors take."""
        if self.uniform is not None:
            return int(self.data.nbytes)
        own = int(self.offsets[-1] - self.offsets[0]) + self.offsets.nbytes
        return own + (0 if self.present is None else self.present.nbytes)

    def value(self, at: int) -> bytes | None:
        """Bytes of one vector."""
        if self.uniform:
            return self.data[at * self.uniform : (at + 1) * self.uniform].tobytes()
        if self.uniform == 0 or (self._present is not None and not self._present[at]):
            return None
        return self.data[self.offsets[at] : self.offsets[at + 1]].tobytes()

    def sizes(self) -> Ints:
        """Bytes of each vector, int64[n]; 0 where absent."""
        return np.diff(self.offsets)

    def all_fit(self, size: int | None) -> bool:
        """Whether it is known at a glance that each vector that is there has `size` bytes."""
        return self.uniform is not None and self.uniform in (size, 0)

    def fits(self, size: int | None) -> Bools:
        """Whether each vector that is there has `size` bytes, bool[n]."""
        good: Bools = self.sizes() == size
        return good if self.present is None else np.logical_or(good, ~self.present)

    def finite(self) -> Bools:
        """Whether each vector holds finite numbers only, bool[n]; those of odd length count as finite."""
        alike = self.uniform % 4 == 0 if self.uniform is not None else not (self.sizes() % 4).any()
        if alike and np.isfinite(self.floats()).all():
            return np.ones(len(self), np.bool_)
        return np.array([_is_finite(self.value(at) or b"") for at in range(len(self))], np.bool_)

    def floats(self) -> npt.NDArray[np.float32]:
        """All numbers of all present vectors, one after the other."""
        own = self.data if self._offsets is None else self.data[self._offsets[0] : self._offsets[-1]]
        return own.view("<f4")

    @staticmethod
    def joined(parts: Sequence[Vectors]) -> Vectors:
        """Vectors of several parts, one after the other."""
        uniform, count = parts[0].uniform, sum(map(len, parts))
        if uniform is not None and all(part.uniform == uniform for part in parts):
            return Vectors(np.concatenate([part.data for part in parts]), uniform, count)
        offsets = _starts(np.concatenate([part.sizes() for part in parts]))
        data = np.concatenate([part.data[part.offsets[0] : part.offsets[-1]] for part in parts])
        present = None
        if any(part.present is not None for part in parts):
            present = np.concatenate(
                [np.ones(len(part), np.bool_) if part.present is None else part.present for part in parts]
            )
        return Vectors.odd(data, offsets, present)


def _starts(sizes: Ints) -> Ints:
    """Where things of these sizes begin, one after the other, and where the last ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def _is_finite(vector: bytes) -> bool:
    return len(vector) % 4 != 0 or bool(np.isfinite(np.frombuffer(vector, "<f4")).all())
