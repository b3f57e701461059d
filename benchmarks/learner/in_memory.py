"""The yardstick: the same batches, drawn by the same generator from plain arrays that lie in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from learner.episodes import Episode, runs_left
from learner.policies.base import PolicySpec
from learner.replay import Batch
from learner.sampler import OFFLINE, ONLINE, SOURCES
from learner.selection import Selection


class InMemory:
    """All frames in memory, and 8 bytes for each that may be drawn."""

    def __init__(self, spec: PolicySpec, batch_size: int, episodes: list[tuple[Episode, Selection]]) -> None:
        """The whole data at once."""
        pools: dict[tuple[int, int], list[npt.NDArray[np.int64]]] = {}
        begin = 0
        for episode, selection in episodes:
            key = spec.task_index(episode.record.task), ONLINE if episode.record.online else OFFLINE
            pools.setdefault(key, []).append(begin + np.flatnonzero(selection.drawable))
            begin += len(episode.frames)
        self._states = np.concatenate([episode.frames.states for episode, _ in episodes])
        self._actions = np.concatenate([episode.frames.actions for episode, _ in episodes])
        self._left = np.concatenate([runs_left(episode.frames) for episode, _ in episodes])
        self._weights = np.concatenate([selection.weights for _, selection in episodes])
        self._advantages = np.concatenate([selection.advantages for _, selection in episodes])
        cells = list(np.ndindex(len(spec.tasks), SOURCES))
        found = [np.concatenate(pools.get(cell, [np.empty(0, np.int64)])) for cell in cells]
        self._anchors = np.concatenate(found)
        self._sizes = np.array([len(anchors) for anchors in found])
        self._first = np.cumsum(self._sizes) - self._sizes
        self._tasks = np.flatnonzero(self._sizes.reshape(-1, SOURCES).any(axis=1))
        self._ahead = np.arange(spec.chunk)
        size, shape = batch_size, (batch_size, spec.chunk, spec.action_size)
        self._batch = Batch(
            states=np.empty((size, spec.state_size), np.float32),
            tasks=np.empty(size, np.int64),
            online=np.empty(size, np.bool_),
            actions=np.empty(shape, np.float32),
            mask=np.empty(shape[:2], np.float32),
            weights=np.empty(size, np.float32),
            advantages=np.empty(size, np.float32),
        )

    def sample(self, random: np.random.Generator, shares: npt.NDArray[np.float64]) -> Batch:
        """As `ReplayBuffer.sample`."""
        batch, size = self._batch, len(self._batch)
        batch.tasks[:] = self._tasks[random.integers(len(self._tasks), size=size)]
        np.less(random.random(size), shares[batch.tasks], out=batch.online)
        cells = batch.tasks * SOURCES + batch.online
        anchors = self._anchors[self._first[cells] + random.integers(self._sizes[cells])]
        np.take(self._states, anchors, axis=0, out=batch.states, mode="clip")
        np.take(self._actions, anchors[:, None] + self._ahead, axis=0, out=batch.actions, mode="clip")
        np.less(self._ahead, self._left[anchors][:, None], out=batch.mask, casting="unsafe")
        batch.actions[batch.mask == 0.0] = 0.0
        np.take(self._weights, anchors, out=batch.weights, mode="clip")
        np.take(self._advantages, anchors, out=batch.advantages, mode="clip")
        return batch
