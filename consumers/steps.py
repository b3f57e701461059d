"""Steps as columns: a matrix of numbers, and vectors as runs of bytes that are never taken apart.

Slices share memory with what they were cut from, so that a batch is decoded, sorted and handed out without a copy
for each episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from consumers.vectors import Bools, Ints, Vectors
from schemas.events import Actor, Step

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
_SEQUENCE, _INDEX, _CAPTURED_AT, _HUMAN, _POLICY_VERSION, _REWARD, _ROW = range(len(SCALARS))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Steps:
    """Steps of one or more episodes.

    What is a number lies in one matrix, a row for each field, so that steps are cut, copied and joined at once and
    not field by field: a batch of a thousand robots is cut into thousands of groups.

    Attributes:
        numbers: int64[len(SCALARS), n]; rewards as the bits of float32.
        state, action, proposed_action: vectors, n of each.
    """

    __slots__ = ("action", "numbers", "proposed_action", "state")

    def __init__(self, numbers: Ints, state: Vectors, action: Vectors, proposed_action: Vectors) -> None:
        self.numbers, self.state, self.action, self.proposed_action = numbers, state, action, proposed_action

    @classmethod
    def of(
        cls, scalars: Mapping[str, npt.NDArray[Any]], state: Vectors, action: Vectors, proposed_action: Vectors
    ) -> Steps:
        """Steps from columns of all `SCALARS`, each of its kind."""
        numbers = np.empty((len(SCALARS), len(state)), np.int64)
        for row, name in zip(numbers, SCALARS, strict=True):
            column = scalars[name]
            row[:] = column.view(np.int32) if name == "reward" else column
        return cls(numbers, state, action, proposed_action)

    @classmethod
    def from_events(cls, events: Sequence[Step], rows: Sequence[int]) -> Steps:
        """Columns of steps that were decoded one by one."""
        scalars = {
            "sequence": [e.sequence for e in events],
            "index": [e.index for e in events],
            "captured_at": [(e.captured_at - _EPOCH) // timedelta(microseconds=1) for e in events],
            "human": [e.actor is Actor.HUMAN for e in events],
            "policy_version": [e.policy_version for e in events],
            "reward": [e.reward for e in events],
            "row": rows,
        }
        return cls.of(
            {name: np.array(scalars[name], kind) for name, kind in SCALARS.items()},
            Vectors.from_values([e.state for e in events]),
            Vectors.from_values([e.action for e in events]),
            Vectors.from_values([e.proposed_action for e in events]),
        )

    def __len__(self) -> int:
        return int(self.numbers.shape[1])

    def _field(self, number: int) -> Ints:
        found: Ints = self.numbers[number]
        return found

    @property
    def sequence(self) -> Ints:
        """int64[n]."""
        return self._field(_SEQUENCE)

    @property
    def index(self) -> npt.NDArray[np.int32]:
        """int32[n], copied."""
        return self._field(_INDEX).astype(np.int32)

    @property
    def captured_at(self) -> Ints:
        """Microseconds since the epoch, int64[n]."""
        return self._field(_CAPTURED_AT)

    @property
    def human(self) -> Bools:
        """Whether a human acted, bool[n], copied."""
        return self._field(_HUMAN).astype(np.bool_)

    @property
    def policy_version(self) -> Ints:
        """int64[n]."""
        return self._field(_POLICY_VERSION)

    @property
    def reward(self) -> npt.NDArray[np.float32]:
        """float32[n], copied."""
        return self._field(_REWARD).astype(np.int32).view(np.float32)

    @property
    def row(self) -> Ints:
        """Place in the batch that they came with, int64[n]."""
        return self._field(_ROW)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One of the `SCALARS`."""
        found: npt.NDArray[Any] = getattr(self, name)
        return found

    def slice(self, low: int, high: int) -> Steps:
        """Steps `low` to `high`, sharing memory."""
        return Steps(
            self.numbers[:, low:high],
            self.state.slice(low, high),
            self.action.slice(low, high),
            self.proposed_action.slice(low, high),
        )

    def take(self, order: Ints) -> Steps:
        """Steps in another order, or some of them, copied."""
        return Steps(
            self.numbers.take(order, axis=1),
            self.state.take(order),
            self.action.take(order),
            self.proposed_action.take(order),
        )

    def copied(self) -> Steps:
        """The same steps in memory of their own, so that the batch they came with can go; `row` begins at 0."""
        numbers = self.numbers.copy()
        numbers[_ROW] = np.arange(numbers.shape[1])
        return Steps(numbers, self.state.copied(), self.action.copied(), self.proposed_action.copied())

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the columns take."""
        return int(self.numbers.nbytes) + self.state.nbytes + self.action.nbytes + self.proposed_action.nbytes

    def where(self, keep: Bools) -> Steps:
        """Steps that `keep`, bool[n], says; the same object when it says all."""
        return self if keep.all() else self.take(np.flatnonzero(keep))

    def values(self, at: int) -> Row:
        """One step's fields, as far as they are columns."""
        scalars: Row = dict(zip(SCALARS, self.numbers[:, at].tolist(), strict=True))
        scalars["human"] = bool(scalars["human"])
        scalars["reward"] = self.numbers[_REWARD, at : at + 1].astype(np.int32).view(np.float32).item()
        return {**scalars, **{name: getattr(self, name).value(at) for name in VECTORS}}

    @staticmethod
    def joined(parts: Sequence[Steps]) -> Steps:
        """Steps of several parts, one after the other; none of no parts."""
        if not parts:
            return Steps.from_events([], [])
        if len(parts) == 1:
            return parts[0]
        numbers = np.concatenate([part.numbers for part in parts], axis=1)
        return Steps(numbers, *(Vectors.joined([getattr(part, name) for part in parts]) for name in VECTORS))


def same_step(one: Row, other: Row) -> bool:
    """Whether two steps of the same sequence say the same, wherever they lie."""
    return all(value == other[name] for name, value in one.items() if name != "row")


def as_event(values: Row, *, episode_id: str, robot_id: str, boot_epoch: int) -> Step:
    """A step's fields as the event that they came from."""
    captured_at = _EPOCH + timedelta(microseconds=cast("int", values["captured_at"]))
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
