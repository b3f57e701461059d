"""Steps as columns: numpy arrays for numbers, and vectors as runs of bytes that are never taken apart.

Slices share memory with what they were cut from, so that a batch is decoded, sorted and handed out without a copy
for each episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from schemas.events import Actor, Step

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Row = dict[str, object]

VECTORS = ("state", "action", "proposed_action")
SCALARS = {
    "sequence": np.int64,
    "index": np.int32,
    "captured_at": np.int64,
    "human": np.bool_,
    "policy_version": np.int64,
    "reward": np.float32,
    "row": np.int64,
}
_SCALAR_BYTES = sum(np.dtype(kind).itemsize for kind in SCALARS.values())
_NO_DATA = np.zeros(0, np.uint8)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Vectors:
    """One vector for each step, little-endian float32 as bytes; some may be absent.

    Attributes:
        data: uint8, all bytes one after the other.
        offsets: int64[n + 1], where each vector begins in `data`.
        present: bool[n], or None when all are.
        uniform: bytes of every vector if all are known to be present and equally long; 0 if all are known to be
            absent; else None.
    """

    __slots__ = ("data", "offsets", "present", "uniform")

    def __init__(
        self, data: npt.NDArray[np.uint8], offsets: Ints, present: Bools | None, uniform: int | None
    ) -> None:
        self.data, self.offsets, self.present, self.uniform = data, offsets, present, uniform

    @classmethod
    def of(cls, data: npt.NDArray[np.uint8], offsets: Ints, present: Bools | None) -> Vectors:
        """Vectors whose uniformity is found out."""
        if len(offsets) == 1:
            return cls(data, offsets, present, None)
        if present is not None and not present.any():
            return cls.absent(len(present))
        sizes = np.diff(offsets)
        same = present is None and bool((sizes == sizes[0]).all())
        return cls(data, offsets, present, (int(sizes[0]) or None) if same else None)

    @classmethod
    def absent(cls, count: int) -> Vectors:
        """`count` vectors of which none is there."""
        return cls(_NO_DATA, np.zeros(count + 1, np.int64), np.zeros(count, np.bool_), 0)

    @classmethod
    def from_values(cls, values: Sequence[bytes | None]) -> Vectors:
        """Vectors from their bytes."""
        sizes = np.fromiter((len(value or b"") for value in values), np.int64, len(values))
        present = np.fromiter((value is not None for value in values), np.bool_, len(values))
        data = np.frombuffer(b"".join(value or b"" for value in values), np.uint8)
        return cls.of(
            data, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]), None if present.all() else present
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def slice(self, low: int, high: int) -> Vectors:
        """Vectors `low` to `high`, sharing memory."""
        present = None if self.present is None else self.present[low:high]
        return Vectors(self.data, self.offsets[low : high + 1], present, self.uniform)

    def take(self, order: Ints) -> Vectors:
        """Vectors in another order, copied."""
        if self.uniform:
            rows = self.data[self.offsets[0] : self.offsets[-1]].reshape(-1, self.uniform)[order]
            offsets = np.arange(len(order) + 1, dtype=np.int64) * self.uniform
            return Vectors(rows.reshape(-1), offsets, None, self.uniform)
        if self.uniform == 0:
            return Vectors.absent(len(order))
        sizes = self.sizes()[order]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        moved_by = np.repeat(self.offsets[:-1][order] - offsets[:-1], sizes)
        data = self.data[np.arange(offsets[-1]) + moved_by]
        return Vectors.of(data, offsets, None if self.present is None else self.present[order])

    def copied(self) -> Vectors:
        """The same vectors in memory of their own."""
        if self.uniform == 0:
            return Vectors.absent(len(self))
        first = self.offsets[0]
        present = None if self.present is None else self.present.copy()
        return Vectors(self.data[first : self.offsets[-1]].copy(), self.offsets - first, present, self.uniform)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the vectors take."""
        own = int(self.offsets[-1] - self.offsets[0]) + self.offsets.nbytes
        return own + (0 if self.present is None else self.present.nbytes)

    def value(self, at: int) -> bytes | None:
        """Bytes of one vector."""
        if self.present is not None and not self.present[at]:
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
        whole = self.data[self.offsets[0] : self.offsets[-1]]
        if not (self.sizes() % 4).any() and np.isfinite(whole.view("<f4")).all():
            return np.ones(len(self), np.bool_)
        return np.array([_is_finite(self.value(at) or b"") for at in range(len(self))], np.bool_)

    def floats(self) -> npt.NDArray[np.float32]:
        """All numbers of all present vectors, one after the other."""
        return self.data[self.offsets[0] : self.offsets[-1]].view("<f4")

    @staticmethod
    def joined(parts: Sequence[Vectors]) -> Vectors:
        """Vectors of several parts, one after the other."""
        uniform = parts[0].uniform
        if any(part.uniform != uniform for part in parts):
            uniform = None
        if uniform == 0:
            return Vectors.absent(sum(map(len, parts)))
        data = np.concatenate([part.data[part.offsets[0] : part.offsets[-1]] for part in parts])
        if uniform is not None:
            return Vectors(data, np.arange(0, len(data) + 1, uniform), None, uniform)
        sizes = np.concatenate([part.sizes() for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
        present = None
        if any(part.present is not None for part in parts):
            present = np.concatenate(
                [np.ones(len(part), np.bool_) if part.present is None else part.present for part in parts]
            )
        return Vectors(data, offsets, present, None)


@dataclass(slots=True)
class Steps:
    """Steps of one or more episodes, all columns equally long.

    sequence, captured_at (microseconds since the epoch), policy_version and row (place in the batch that they came
    with) int64[n]; index int32[n]; human bool[n]; reward float32[n].
    """

    sequence: Ints
    index: npt.NDArray[np.int32]
    captured_at: Ints
    human: Bools
    policy_version: Ints
    reward: npt.NDArray[np.float32]
    row: Ints
    state: Vectors
    action: Vectors
    proposed_action: Vectors

    @classmethod
    def from_events(cls, events: Sequence[Step], rows: Sequence[int]) -> Steps:
        """Columns of steps that were decoded one by one."""
        return cls(
            sequence=np.array([e.sequence for e in events], np.int64),
            index=np.array([e.index for e in events], np.int32),
            captured_at=np.array(
                [(e.captured_at - _EPOCH) // timedelta(microseconds=1) for e in events], np.int64
            ),
            human=np.array([e.actor is Actor.HUMAN for e in events], np.bool_),
            policy_version=np.array([e.policy_version for e in events], np.int64),
            reward=np.array([e.reward for e in events], np.float32),
            row=np.array(rows, np.int64),
            state=Vectors.from_values([e.state for e in events]),
            action=Vectors.from_values([e.action for e in events]),
            proposed_action=Vectors.from_values([e.proposed_action for e in events]),
        )

    def __len__(self) -> int:
        return len(self.sequence)

    def slice(self, low: int, high: int) -> Steps:
        """Steps `low` to `high`, sharing memory."""
        return Steps(
            self.sequence[low:high],
            self.index[low:high],
            self.captured_at[low:high],
            self.human[low:high],
            self.policy_version[low:high],
            self.reward[low:high],
            self.row[low:high],
            self.state.slice(low, high),
            self.action.slice(low, high),
            self.proposed_action.slice(low, high),
        )

    def take(self, order: Ints) -> Steps:
        """Steps in another order, or some of them, copied."""
        scalars = {name: getattr(self, name)[order] for name in SCALARS}
        return Steps(**scalars, **{name: getattr(self, name).take(order) for name in VECTORS})

    def copied(self) -> Steps:
        """The same steps in memory of their own, so that the batch they came with can go; `row` begins at 0."""
        return Steps(
            self.sequence.copy(),
            self.index.copy(),
            self.captured_at.copy(),
            self.human.copy(),
            self.policy_version.copy(),
            self.reward.copy(),
            np.arange(len(self), dtype=np.int64),
            self.state.copied(),
            self.action.copied(),
            self.proposed_action.copied(),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns take."""
        vectors = self.state.nbytes + self.action.nbytes + self.proposed_action.nbytes
        return len(self) * _SCALAR_BYTES + vectors

    def where(self, keep: Bools) -> Steps:
        """Steps that `keep`, bool[n], says; the same object when it says all."""
        return self if keep.all() else self.take(np.flatnonzero(keep))

    def values(self, at: int) -> Row:
        """One step's fields, as far as they are columns."""
        scalars = {name: getattr(self, name)[at].item() for name in SCALARS}
        return {**scalars, **{name: getattr(self, name).value(at) for name in VECTORS}}

    @staticmethod
    def joined(parts: Sequence[Steps]) -> Steps:
        """Steps of several parts, one after the other; none of no parts."""
        if not parts:
            return Steps.from_events([], [])
        if len(parts) == 1:
            return parts[0]
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(part, name) for part in parts]) for name in SCALARS
        }
        columns |= {name: Vectors.joined([getattr(part, name) for part in parts]) for name in VECTORS}
        return Steps(**columns)


def same_step(one: Row, other: Row) -> bool:
    """Whether two steps of the same sequence say the same, wherever they lie."""
    return all(value == other[name] for name, value in one.items() if name != "row")


def as_event(values: Row, *, episode_id: str, robot_id: str, boot_epoch: int) -> Step:
    """A step's fields as the event that they came from."""
    captured_at = _EPOCH + timedelta(microseconds=int(str(values["captured_at"])))
    same = {name: values[name] for name in ("sequence", "index", "policy_version", "reward", *VECTORS)}
    return Step.model_validate(
        {
            **same,
            "captured_at": captured_at,
            "actor": Actor.HUMAN if values["human"] else Actor.POLICY,
            "episode_id": episode_id,
            "robot_id": robot_id,
            "boot_epoch": boot_epoch,
        }
    )


def _is_finite(vector: bytes) -> bool:
    return len(vector) % 4 != 0 or bool(np.isfinite(np.frombuffer(vector, "<f4")).all())
