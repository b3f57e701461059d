"""Counting which episodes a policy version is made from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from schemas.events import EpisodeDraws

# Batches that are kept as they are before they are counted: 1 MB of batches of 256.
_PENDING_BATCHES = 1000


class DrawCounter:
    """How often each revision of an episode, by its row in the index, was drawn since it was last asked."""

    def __init__(self, identity: Callable[[int], tuple[str, int]]) -> None:
        """`identity` says the id and revision of a row."""
        self._identity = identity
        self._pending: list[npt.NDArray[np.int32]] = []
        self._counts = np.zeros(0, np.int64)

    def count(self, rows: npt.NDArray[np.int32]) -> None:
        """These were drawn, int32[B]; the array is kept."""
        self._pending.append(rows)
        if len(self._pending) >= _PENDING_BATCHES:
            self._settle()

    def take(self) -> tuple[EpisodeDraws, ...]:
        """Episodes that were drawn from since the last call, in the order of admission."""
        self._settle()
        found = []
        for row in np.flatnonzero(self._counts).tolist():
            episode_id, revision = self._identity(row)
            draws = int(self._counts[row])
            found.append(EpisodeDraws(episode_id=episode_id, revision=revision, draws=draws))
        self._counts = np.zeros(0, np.int64)
        return tuple(found)

    def counts(self) -> npt.NDArray[np.int64]:
        """How often each row was drawn since it was last asked, int64[rows]; trailing zeros may lack."""
        self._settle()
        return self._counts.copy()

    def go_on(self, counts: npt.NDArray[np.int64]) -> None:
        """Start from these counts."""
        self._pending.clear()
        self._counts = counts.copy()

    def _settle(self) -> None:
        if self._pending:
            counts = np.bincount(np.concatenate(self._pending), minlength=len(self._counts))
            counts[: len(self._counts)] += self._counts
            self._counts = counts
            self._pending.clear()
