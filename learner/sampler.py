"""How much of a batch is online data. A sampler is told the losses and says the shares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

OFFLINE, ONLINE = 0, 1
SOURCES = 2
"""Columns of everything that is counted by task and source."""


@dataclass(frozen=True, slots=True)
class GroupLosses:
    """Draws and losses by task and source: `draws` int64[tasks, 2], `sums` float64[tasks, 2] (of losses)."""

    draws: npt.NDArray[np.int64]
    sums: npt.NDArray[np.float64]

    @classmethod
    def none(cls, tasks: int) -> GroupLosses:
        """Nothing drawn yet."""
        return cls(np.zeros((tasks, SOURCES), np.int64), np.zeros((tasks, SOURCES)))

    @classmethod
    def of(
        cls,
        tasks: npt.NDArray[np.int64],
        online: npt.NDArray[np.bool_],
        losses: npt.NDArray[np.float32],
        *,
        task_count: int,
    ) -> GroupLosses:
        """Group the samples of one batch; all arrays have length B. A loss that is no number counts as 0."""
        groups = tasks * SOURCES + online
        cells = task_count * SOURCES
        draws = np.bincount(groups, minlength=cells).astype(np.int64)
        told = np.where(np.isfinite(losses), losses, 0.0)
        sums = np.bincount(groups, weights=told, minlength=cells).astype(np.float64)
        return cls(draws.reshape(task_count, SOURCES), sums.reshape(task_count, SOURCES))

    def __add__(self, other: GroupLosses) -> GroupLosses:
        return GroupLosses(self.draws + other.draws, self.sums + other.sums)

    @property
    def mean(self) -> float:
        """Mean loss of all samples; 0 when there are none."""
        draws = int(self.draws.sum())
        return float(self.sums.sum()) / draws if draws else 0.0

    @property
    def online_share(self) -> float:
        """Share of online samples; 0 when there are none."""
        draws = int(self.draws.sum())
        return float(self.draws[:, ONLINE].sum()) / draws if draws else 0.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one update drew: losses by task and source, and `shares` float64[tasks], the online share drawn with.

    A task without any data has the share NaN. skipped: the gradient was absurd, and nothing was learned.
    named: what else the algorithm told of it.
    """

    losses: GroupLosses
    shares: npt.NDArray[np.float64]
    skipped: bool = False
    named: Mapping[str, float] = field(default_factory=dict)


class Sampler(Protocol):
    """Decides the online share of each task."""

    def online_shares(self) -> npt.NDArray[np.float64]:
        """Share of online data inside each task, float64[tasks], each in [0, 1]."""
        ...

    def observe(self, losses: GroupLosses) -> None:
        """Hear the losses of one update."""
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold, as JSON."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        ...


class FixedMixing:
    """The same online share for every task, whatever the losses. Implements `Sampler`."""

    def __init__(self, tasks: int, online_share: float) -> None:
        self._shares = np.full(tasks, online_share)

    def online_shares(self) -> npt.NDArray[np.float64]:
        """The fixed share, float64[tasks]."""
        return self._shares

    def observe(self, losses: GroupLosses) -> None:
        """Pay no heed."""

    def state(self) -> dict[str, Any]:
        """Nothing: the share is a setting."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""
