"""The replay buffer: frames of admitted episodes, and which of them training may draw, by task and source.

A light index over plain arrays: one anchor (8 bytes) for each frame that may be drawn, and a chunk's targets are
gathered when it is drawn. Frames of a superseded revision are no longer drawn; their room is not reused.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.draws import DrawCounter
from learner.episodes import Episode, runs_left
from learner.policies.base import Floats, PolicySpec
from learner.sampler import OFFLINE, ONLINE, SOURCES

_FIRST_CAPACITY = 4096


@dataclass(frozen=True, slots=True)
class Selection:
    """What an algorithm makes of an episode's n frames.

    drawable bool[n]; weights float32[n], factors of the frames' losses; advantages float32[n], NaN where unknown
    and +∞ where good by decree.
    """

    drawable: npt.NDArray[np.bool_]
    weights: Floats
    advantages: Floats

    @classmethod
    def of(
        cls, drawable: npt.NDArray[np.bool_], *, weights: Floats | None = None, advantages: Floats | None = None
    ) -> Selection:
        """A selection with weight 1 and unknown advantages, where nothing else is said."""
        return cls(
            drawable,
            np.ones(len(drawable), np.float32) if weights is None else weights,
            np.full(len(drawable), np.nan, np.float32) if advantages is None else advantages,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples for one update. The arrays are written again by the next draw.

    states float32[B, d]; tasks int64[B], places in the policy's tasks; online bool[B];
    actions float32[B, chunk, a], the targets; mask float32[B, chunk], 1 where a target may be used;
    weights and advantages float32[B], as the algorithm selected the frames;
    indicators int64[B], what a conditioned policy is told (`learner.policies.base`), None: nothing;
    images uint8[B, h, w, c], None where the policy has no camera.
    """

    states: Floats
    tasks: npt.NDArray[np.int64]
    online: npt.NDArray[np.bool_]
    actions: Floats
    mask: Floats
    weights: Floats
    advantages: Floats
    indicators: npt.NDArray[np.int64] | None = None
    images: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.tasks)


class ReplayBuffer:
    """Online and offline pools by task. What is drawn depends on the admissions' order and the generator only."""

    def __init__(self, spec: PolicySpec, batch_size: int) -> None:
        self._spec = spec
        self.draws = DrawCounter()
        self._used = 0
        self._states = np.empty((_FIRST_CAPACITY, spec.state_size), np.float32)
        self._actions = np.empty((_FIRST_CAPACITY, spec.action_size), np.float32)
        self._left = np.empty(_FIRST_CAPACITY, np.int32)
        self._weights = np.empty(_FIRST_CAPACITY, np.float32)
        self._advantages = np.empty(_FIRST_CAPACITY, np.float32)
        # (task, source) -> anchors of each episode, in the order of admission
        self._pools: dict[tuple[int, int], dict[str, npt.NDArray[np.int64]]] = {}
        self._anchors = np.empty(0, np.int64)
        self._first = np.zeros((len(spec.tasks), SOURCES), np.int64)
        self._sizes = np.zeros((len(spec.tasks), SOURCES), np.int64)
        self._stale = False
        self._ahead = np.arange(spec.chunk)
        self._batch = Batch(
            states=np.empty((batch_size, spec.state_size), np.float32),
            tasks=np.empty(batch_size, np.int64),
            online=np.empty(batch_size, np.bool_),
            actions=np.empty((batch_size, spec.chunk, spec.action_size), np.float32),
            mask=np.empty((batch_size, spec.chunk), np.float32),
            weights=np.empty(batch_size, np.float32),
            advantages=np.empty(batch_size, np.float32),
        )

    def add(self, episode: Episode, selection: Selection) -> int:
        """Make the selected frames of an episode drawable; how many those are.

        An earlier revision of the same episode is dropped.

        Raises:
            UnknownTask: the policy does not know the episode's task.
        """
        record, frames = episode.record, episode.frames
        task = self._spec.task_index(record.task)
        self.remove(record.episode_id)
        self._reserve(len(frames))
        begin, end = self._used, self._used + len(frames)
        self.draws.admit(begin, record.episode_id, record.revision)
        self._states[begin:end] = frames.states
        self._actions[begin:end] = frames.actions
        self._left[begin:end] = runs_left(frames)
        self._weights[begin:end] = selection.weights
        self._advantages[begin:end] = selection.advantages
        self._used = end
        anchors = begin + np.flatnonzero(selection.drawable)
        if len(anchors):
            pool = self._pools.setdefault((task, ONLINE if record.online else OFFLINE), {})
            pool[record.episode_id] = anchors
            self._stale = True
        return len(anchors)

    def remove(self, episode_id: str) -> None:
        """Draw nothing of this episode any more; nothing happens if it is not here."""
        for pool in self._pools.values():
            if pool.pop(episode_id, None) is not None:
                self._stale = True

    def sizes(self) -> npt.NDArray[np.int64]:
        """Frames that may be drawn, int64[tasks, 2]: offline, online."""
        self._refresh()
        return self._sizes.copy()

    def shares(self, online_shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The online shares that `sample` draws with, float64[tasks]: an empty source gives way to the other.

        NaN where a task has no data at all.
        """
        self._refresh()
        shares = np.where(self._sizes[:, ONLINE] == 0, 0.0, online_shares)
        shares = np.where(self._sizes[:, OFFLINE] == 0, 1.0, shares)
        return np.where(self._sizes.any(axis=1), shares, np.nan)

    def sample(
        self,
        random: np.random.Generator,
        online_shares: npt.NDArray[np.float64],
        task_weights: npt.NDArray[np.float64] | None = None,
    ) -> Batch:
        """Draw a batch: a task that has any data, then the source by the task's online share, then a frame.

        Args:
            random: the only source of chance.
            online_shares: float64[tasks]. Where one source is empty, the other is drawn.
            task_weights: float64[tasks], positive; tasks are drawn in proportion. None: uniformly (the paper's).

        Raises:
            ValueError: there is nothing to draw.
        """
        self._refresh()
        batch, size = self._batch, len(self._batch)
        tasks = np.flatnonzero(self._sizes.any(axis=1))
        if len(tasks) == 0:
            raise ValueError("the replay buffer holds no frame that may be drawn")
        shares = self.shares(online_shares)
        if task_weights is None:
            batch.tasks[:] = tasks[random.integers(len(tasks), size=size)]
        else:
            shared_out = np.cumsum(task_weights[tasks])
            places = np.searchsorted(shared_out, random.random(size) * shared_out[-1], side="right")
            batch.tasks[:] = tasks[np.minimum(places, len(tasks) - 1)]
        np.less(random.random(size), shares[batch.tasks], out=batch.online)
        source = batch.online.astype(np.int64)
        places = random.integers(self._sizes[batch.tasks, source])
        anchors = self._anchors[self._first[batch.tasks, source] + places]
        self.draws.count(anchors)
        # mode="clip" lets numpy write straight into `out`; targets past the end of the array are masked anyway.
        np.take(self._states, anchors, axis=0, out=batch.states, mode="clip")
        np.take(self._actions, anchors[:, None] + self._ahead, axis=0, out=batch.actions, mode="clip")
        np.less(self._ahead, self._left[anchors][:, None], out=batch.mask, casting="unsafe")
        batch.actions[batch.mask == 0.0] = 0.0
        np.take(self._weights, anchors, out=batch.weights, mode="clip")
        np.take(self._advantages, anchors, out=batch.advantages, mode="clip")
        return batch

    def _refresh(self) -> None:
        if not self._stale:
            return
        parts: list[npt.NDArray[np.int64]] = []
        position = 0
        for task, source in np.ndindex(*self._sizes.shape):
            pool = self._pools.get((task, source), {})
            size = sum(len(anchors) for anchors in pool.values())
            self._first[task, source], self._sizes[task, source] = position, size
            parts.extend(pool.values())
            position += size
        self._anchors = np.concatenate(parts) if parts else np.empty(0, np.int64)
        self._stale = False

    def _reserve(self, count: int) -> None:
        needed, capacity = self._used + count, len(self._left)
        if needed <= capacity:
            return
        more = max(capacity, needed - capacity)  # doubles, so that adding stays linear
        self._states = np.concatenate((self._states, np.empty((more, self._spec.state_size), np.float32)))
        self._actions = np.concatenate((self._actions, np.empty((more, self._spec.action_size), np.float32)))
        self._left = np.concatenate((self._left, np.empty(more, np.int32)))
        self._weights = np.concatenate((self._weights, np.empty(more, np.float32)))
        self._advantages = np.concatenate((self._advantages, np.empty(more, np.float32)))
