"""Consumed records as columns. Kafka's objects are gone before the next come, so memory stays warm.

Fifty thousand records as Python objects are 30 MB: by the time they are read, they have left the processor's
caches, and so has the memory that the next are written to. A few thousand at a time cost a third less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

import numpy as np

from consumers.records import Origin, Record, origin
from consumers.vectors import Bools, Ints
from schemas.topics import ROBOT_STEPS

NO_VALUE = -1
"""Size of a value that is not there."""
_KEY_BYTES = 60
"""Rough cost of a key."""


@dataclass(slots=True)
class StepRecords:
    """Records of robot-steps, n of them.

    Attributes:
        pieces: the values, one after the other, in runs of bytes of which none ends within a value.
        sizes: int64[n], bytes of each value, or NO_VALUE.
        keys: n of them.
        partitions, offsets, appended_ms: int64[n], where they lie, and the broker's time since the epoch.
    """

    pieces: list[bytes]
    sizes: Ints
    keys: list[bytes | None]
    partitions: Ints
    offsets: Ints
    appended_ms: Ints
    _ends: tuple[Ints, Ints] | None = None
    """Where values end, counted over all pieces, and where pieces do; found out when it is first needed."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> StepRecords:
        """Records as Kafka's client gives them."""
        count = len(records)
        values = [record.value() for record in records]
        return cls(
            *_joined_values(values),
            cast("list[bytes | None]", [record.key() for record in records]),
            np.fromiter([record.partition() for record in records], np.int64, count),
            np.fromiter([record.offset() for record in records], np.int64, count),
            np.fromiter([record.timestamp()[1] for record in records], np.int64, count),
        )

    @classmethod
    def of_values(
        cls,
        values: Sequence[bytes | None],
        keys: list[bytes | None],
        partitions: Ints,
        offsets: Ints,
        appended_ms: Ints,
    ) -> StepRecords:
        """Records from their parts."""
        return cls(*_joined_values(values), keys, partitions, offsets, appended_ms)

    @classmethod
    def joined(cls, parts: Sequence[StepRecords]) -> StepRecords:
        """Records of several parts, one after the other; at least one part."""
        if len(parts) == 1:
            return parts[0]
        return cls(
            [piece for part in parts for piece in part.pieces],
            np.concatenate([part.sizes for part in parts]),
            list(chain.from_iterable(part.keys for part in parts)),
            np.concatenate([part.partitions for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.appended_ms for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    def value(self, row: int) -> bytes | None:
        """One record's value."""
        return self.values(np.array([row]))[0]

    def values(self, rows: Ints | None = None) -> list[bytes | None]:
        """Values of these records, or of all."""
        if self._ends is None:
            pieces = np.cumsum([len(piece) for piece in self.pieces])
            self._ends = np.cumsum(np.maximum(self.sizes, 0)), pieces
        ends, piece_ends = self._ends
        sizes = self.sizes if rows is None else self.sizes[rows]
        highs = ends if rows is None else ends[rows]
        numbers = np.searchsorted(piece_ends, highs)
        highs = highs - np.append(0, piece_ends)[numbers]
        cuts = zip(numbers.tolist(), (highs - sizes).tolist(), highs.tolist(), strict=True)
        return [None if low > high else self.pieces[number][low:high] for number, low, high in cuts]

    def origin(self, row: int) -> Origin:
        """Where a record lies, and its bytes."""
        return Origin(
            ROBOT_STEPS,
            int(self.partitions[row]),
            int(self.offsets[row]),
            int(self.appended_ms[row]),
            self.keys[row],
            self.value(row),
        )

    def take(self, rows: Ints) -> StepRecords:
        """Some of them, in memory of their own."""
        pieces, sizes = _joined_values(self.values(rows))
        partitions, offsets, times = (c[rows] for c in (self.partitions, self.offsets, self.appended_ms))
        return StepRecords(pieces, sizes, [self.keys[row] for row in rows.tolist()], partitions, offsets, times)

    def where(self, keep: Bools) -> StepRecords:
        """Those that `keep`, bool[n], says; the same object when it says all."""
        return self if keep.all() else self.take(np.flatnonzero(keep))

    @property
    def value_bytes(self) -> int:
        """Bytes of their values."""
        return sum(map(len, self.pieces))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that they take."""
        columns = (self.sizes, self.partitions, self.offsets, self.appended_ms)
        return self.value_bytes + _KEY_BYTES * len(self) + sum(c.nbytes for c in columns)


@dataclass(slots=True)
class Intake:
    """What was consumed and is not decoded yet: steps as columns, and the few other records."""

    steps: list[StepRecords] = field(default_factory=list)
    others: list[Origin] = field(default_factory=list)
    nbytes: int = 0
    """Bytes of all values."""

    @classmethod
    def of(cls, records: Sequence[Record]) -> Intake:
        """Records of the robot topics."""
        found = cls()
        found.add(records)
        return found

    def add(self, records: Sequence[Record]) -> None:
        """Take records in, in the order in which they were consumed."""
        steps = [record for record in records if record.topic() == ROBOT_STEPS]
        if len(steps) < len(records):
            others = [origin(record) for record in records if record.topic() != ROBOT_STEPS]
            self.others += others
            self.nbytes += _bytes_of(others)
        if steps:
            found = StepRecords.of(steps)
            self.steps.append(found)
            self.nbytes += found.value_bytes

    def drop(self, number: int) -> None:
        """Forget the records of a partition number."""
        self.others = [place for place in self.others if place.partition != number]
        kept = [records.where(records.partitions != number) for records in self.steps]
        self.steps = [records for records in kept if len(records)]
        self.nbytes = _bytes_of(self.others) + sum(records.value_bytes for records in self.steps)

    def __len__(self) -> int:
        return sum(map(len, self.steps)) + len(self.others)


def _bytes_of(places: Sequence[Origin]) -> int:
    return sum(len(place.value or b"") for place in places)


def _joined_values(values: Sequence[bytes | str | None]) -> tuple[list[bytes], Ints]:
    try:
        return [b"".join(values)], np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
    except TypeError:  # some have no value
        sizes = [NO_VALUE if value is None else len(value) for value in values]
        return [b"".join(value for value in values if isinstance(value, bytes))], np.array(sizes, np.int64)
