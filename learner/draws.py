"""Counting which episodes a policy version is made from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from schemas.events import EpisodeDraws

# Batches that are kept as they are before they are counted: 2 MB of batches of 256.
_PENDING_BATCHES = 1000


class DrawCounter:
    """How often each revision of an episode was drawn since it was last asked."""

    def __init__(self) -> None:
        self._begins: list[int] = []
        self._episodes: list[tuple[str, int]] = []
        self._pending: list[npt.NDArray[np.int64]] = []
        self._counts = np.zeros(0, np.int64)

    def admit(self, begin: int, episode_id: str, revision: int) -> None:
        """Frames from place `begin` on, up to the next that is admitted, are this episode's; places only grow."""
        self._begins.append(begin)
        self._episodes.append((episode_id, revision))

    def count(self, places: npt.NDArray[np.int64]) -> None:
        """These frames were drawn, int64[B]; the array is kept."""
        self._pending.append(places)
        if len(self._pending) >= _PENDING_BATCHES:
            self._settle()

    def take(self) -> tuple[EpisodeDraws, ...]:
        """Episodes that were drawn from since the last call, in the order of admission."""
        self._settle()
        found = tuple(
            EpisodeDraws(
                episode_id=self._episodes[at][0], revision=self._episodes[at][1], draws=int(self._counts[at])
            )
            for at in np.flatnonzero(self._counts)
        )
        self._counts[:] = 0
        return found

    def _settle(self) -> None:
        self._counts = np.pad(self._counts, (0, len(self._begins) - len(self._counts)))
        if self._pending:
            drawn = np.searchsorted(self._begins, np.concatenate(self._pending), side="right") - 1
            self._counts += np.bincount(drawn, minlength=len(self._begins))
            self._pending.clear()
