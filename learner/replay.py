"""The replay buffer: which frames of admitted episodes training may draw, by task and source, and where they lie.

In memory is an index by episode (`learner.episode_index`, and here 40 bytes for each that has something to draw);
frames lie on disk (`learner.frames`), and a batch is gathered when it is drawn.

What leaves: when an admission brings the steps of online episodes that have something to draw above the limit,
those that were admitted longest ago leave, whole, until the limit holds; so do those between them with nothing to
draw. What was just admitted stays, and so do demonstrations, which do not count. What left comes back only with a
newer revision.
"""

from __future__ import annotations

import copy
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.footage import View
from learner.cameras import Cameras
from learner.draws import DrawCounter
from learner.episode_index import GONE, HELD, LEFT, EpisodeIndex
from learner.episodes import Episode, EpisodeRecord, runs_left
from learner.frames import FACTS, FrameStore, Room
from learner.policies.base import Floats, PolicySpec
from learner.pool import Pool
from learner.sampler import OFFLINE, ONLINE, SOURCES
from learner.selection import Selection
from learner.team import ALONE, Team

_NOWHERE, _ELSEWHERE = -1, -2
# So many hops lead from where a table says that an entry is; where episodes of very different lengths lie together
# that is not far enough, and it is searched.
_MOST_HOPS = 6
# So many are taken without looking whether fewer were enough, which costs as much as one.
_FEW = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """Samples for one update. The arrays are written again by the next draw.

    states float32[B, d]; tasks int64[B], places in the policy's tasks; online bool[B];
    actions float32[B, chunk, a], the targets; mask float32[B, chunk], 1 where a target may be used;
    weights and advantages float32[B], as the algorithm selected the frames;
    indicators int64[B], what a conditioned policy is told (`learner.policies.base`), None: nothing;
    images by camera that the policy sees: uint8[B, h, w, 3], zeros where `present`, bool[B], is False;
    ranks int64[B], with which of several ranks each sample lies, None: there is one.
    """

    states: Floats
    tasks: npt.NDArray[np.int64]
    online: npt.NDArray[np.bool_]
    actions: Floats
    mask: Floats
    weights: Floats
    advantages: Floats
    indicators: npt.NDArray[np.int64] | None = None
    images: Mapping[str, View] = field(default_factory=dict)
    ranks: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.tasks)

    def only(self, rows: npt.NDArray[np.int64]) -> Batch:
        """Some of the samples, copied."""
        found: dict[str, Any] = {"images": {name: v.only(rows) for name, v in self.images.items()}}
        for one in fields(self):
            if one.name not in found:
                array = getattr(self, one.name)
                found[one.name] = None if array is None else array[rows]
        return Batch(**found)


class ReplayBuffer:
    """Online and offline pools by task. What is drawn depends on the admissions' order and the generator only."""

    def __init__(
        self,
        spec: PolicySpec,
        batch_size: int,
        *,
        limit: int | None = None,
        room: Room | None = None,
        index: EpisodeIndex | None = None,
        team: Team = ALONE,
    ) -> None:
        """An empty one.

        Args:
            spec: widths of the vectors, and the tasks.
            batch_size: samples of a batch.
            limit: of the online steps that may lie here; None: no limit.
            room: where frames lie.
            index: of a buffer whose episodes will be added again, those that it holds, in their order.
            team: whose frames lie on several ranks. All add the same episodes in the same order.
        """
        self._team = team
        self._spec = spec
        self._limit = limit
        self.index = index if index is not None else EpisodeIndex()
        self.draws = DrawCounter(self.index.identity)
        self._store = FrameStore(spec.state_size, spec.action_size, room or Room())
        self._cameras = Cameras(spec, batch_size, room or Room())
        self._begins = array("q", [_NOWHERE]) * self.index.rows
        self._shards = array("h", [0]) * self.index.rows
        self._pools = {key: Pool() for key in np.ndindex(len(spec.tasks), SOURCES)}
        self._online_steps = 0
        self._oldest_candidate = 0
        self._just_added = -1
        self._pool_begins = np.zeros((len(spec.tasks), SOURCES), np.int64)
        self._sizes = np.zeros((len(spec.tasks), SOURCES), np.int64)
        self._tasks = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int32)
        self._owners = np.empty(0, np.int64)
        self._ends = self._bases = np.empty(0, np.int64)
        self._shift, self._near, self._hops = 0, np.empty(0, np.int32), 0
        self._full = False
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

    @property
    def online_steps(self) -> int:
        """Steps of the online episodes that have something to draw: those that the limit bounds."""
        return self._online_steps

    def add(self, episode: Episode, selection: Selection) -> int:
        """Make the selected frames of an episode drawable; how many those are.

        An earlier revision of the same episode is dropped. One that the index holds already, in this revision and
        without its frames, gets them back.

        Raises:
            UnknownTask: the policy does not know the episode's task.
            DiskFull: there is no room; nothing was changed.
        """
        record, frames = episode.record, episode.frames
        task = self._spec.task_index(record.task)
        chosen = np.flatnonzero(selection.drawable)
        begin = _NOWHERE
        if len(chosen):
            facts = np.zeros(len(frames), FACTS)
            first = facts[: len(chosen)]  # in the order of what may be drawn: a sample looks at one row of them
            first["skip"] = chosen - np.arange(len(chosen))
            first["left"] = runs_left(frames, selection.breaks)[chosen]
            first["weight"] = selection.weights[chosen]
            first["advantage"] = selection.advantages[chosen]
            begin = self._store.add(frames.states, frames.actions, facts)
            try:
                self._cameras.add(begin, len(frames), episode.tracks)
            except BaseException:
                self._store.remove(begin, len(frames))
                raise
        self._enter(record, task, begin, len(chosen))
        return len(chosen)

    def add_elsewhere(self, record: EpisodeRecord, count: int) -> None:
        """As `add`, for an episode whose frames lie with another rank, `count` of them drawable."""
        self._enter(record, self._spec.task_index(record.task), _ELSEWHERE if count else _NOWHERE, count)

    def remove(self, episode_id: str) -> None:
        """Draw nothing of this episode any more; nothing happens if it is not here."""
        row = self.index.row(episode_id)
        if row is not None:
            self._drop(row)
            self.index.mark(row, GONE)

    def overflow(self) -> list[str]:
        """Let leave what must, and say which episodes those were; to be called after each `add`.

        Nothing behind what was just added: while a buffer is filled again, that has no frames yet.
        """
        left: list[str] = []
        while self._limit is not None and self._online_steps > self._limit:
            row = self._oldest_candidate
            if row >= self._just_added:
                break
            if self.index.state(row) == HELD and self.index.online(row):
                self._drop(row)
                self.index.mark(row, LEFT)
                left.append(self.index.identity(row)[0])
            self._oldest_candidate += 1
        return left

    def sizes(self) -> npt.NDArray[np.int64]:
        """Frames that may be drawn, int64[tasks, 2]: offline, online."""
        self._refresh()
        return self._sizes.copy()

    def shares(self, online_shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The online shares that `sample` draws with, float64[tasks]: an empty source gives way to the other.

        NaN where a task has no data at all.
        """
        self._refresh()
        if self._full:  # what is usual
            return online_shares
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
        batch = self._batch
        if len(self._tasks) == 0:
            raise ValueError("the replay buffer holds no frame that may be drawn")
        shares = self.shares(online_shares)
        places, entries = self._choose(random, shares, task_weights, batch)
        self.draws.count(self._rows[entries])
        part, rows = batch, places + self._bases[entries]
        if self._team.ranks > 1:
            owners = self._owners[entries]
            mine = np.flatnonzero(np.isin(owners, self._team.mine))
            part, rows = replace(batch.only(mine), ranks=owners[mine]), rows[mine]
        anchors = self._gather(rows, part)
        if self._cameras:
            part = replace(part, images=self._cameras.take(anchors))
            self._look_ahead(random, shares, task_weights)
        return part

    @property
    def whole(self) -> Batch:
        """The batch that was drawn last, of which several ranks have a part each: tasks and sources are whole."""
        return self._batch

    def close(self) -> None:
        """Let go of the frames' files."""
        self._cameras.close()
        self._store.close()

    def memory(self) -> Mapping[str, int]:
        """Bytes of the index in memory, by part, and `disk`: those of the files."""
        pools = sum(pool.nbytes for pool in self._pools.values())
        drawn = self._rows.nbytes + self._ends.nbytes + self._bases.nbytes
        places = 10 * len(self._begins)
        return {
            "episodes": self.index.nbytes,
            "pools": pools + drawn + places,
            "disk": self._store.end * self._store.row_bytes + self._cameras.nbytes,
        }

    def _choose(
        self,
        random: np.random.Generator,
        shares: npt.NDArray[np.float64],
        task_weights: npt.NDArray[np.float64] | None,
        batch: Batch,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
        """Draw tasks and sources into the batch; places among the drawable frames, and the entries they are of."""
        tasks, size = self._tasks, len(batch)
        if task_weights is None:
            batch.tasks[:] = tasks[random.integers(len(tasks), size=size)]
        else:
            shared_out = np.cumsum(task_weights[tasks])
            places = np.searchsorted(shared_out, random.random(size) * shared_out[-1], side="right")
            batch.tasks[:] = tasks[np.minimum(places, len(tasks) - 1)]
        np.less(random.random(size), shares[batch.tasks], out=batch.online)
        cells = batch.tasks * SOURCES + batch.online
        places = self._pool_begins.ravel()[cells] + random.integers(self._sizes.ravel()[cells])
        return places, self._entries(places)

    def _look_ahead(
        self,
        random: np.random.Generator,
        shares: npt.NDArray[np.float64],
        task_weights: npt.NDArray[np.float64] | None,
    ) -> None:
        """Have the images decoded that the next batch holds, if neither shares nor admissions make it another."""
        ghost = replace(self._batch, tasks=self._batch.tasks.copy(), online=self._batch.online.copy())
        places, entries = self._choose(copy.deepcopy(random), shares, task_weights, ghost)
        rows = places + self._bases[entries]
        if self._team.ranks > 1:
            rows = rows[np.isin(self._owners[entries], self._team.mine)]
        self._cameras.expect(rows + self._store.facts.take(rows)["skip"])

    def _gather(self, rows: npt.NDArray[np.int64], batch: Batch) -> npt.NDArray[np.int64]:
        """Fill a batch; `rows` are those of the samples' facts, which say how far on the frames lie; those."""
        store = self._store
        # mode="clip" lets numpy write straight into `out`; targets past the end of the array are masked anyway.
        facts = store.facts.take(rows)
        anchors: npt.NDArray[np.int64] = rows + facts["skip"]
        np.take(store.states, anchors, axis=0, out=batch.states, mode="clip")
        np.take(store.actions, anchors[:, None] + self._ahead, axis=0, out=batch.actions, mode="clip")
        np.less(self._ahead, facts["left"][:, None], out=batch.mask, casting="unsafe")
        batch.actions[batch.mask == 0.0] = 0.0
        batch.weights[:] = facts["weight"]
        batch.advantages[:] = facts["advantage"]
        return anchors

    def _entries(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """For each place among the drawable frames, which entry it is of: a table, and a few steps from there."""
        entries: npt.NDArray[np.int32] = self._near[places >> self._shift]
        if self._hops <= _FEW:
            for _ in range(self._hops):
                entries += self._ends[entries] <= places
            return entries
        for _ in range(_MOST_HOPS):
            behind = self._ends[entries] <= places
            if not behind.any():
                return entries
            entries += behind
        found: npt.NDArray[np.int32] = np.searchsorted(self._ends, places, side="right").astype(np.int32)
        return found

    def _row(self, record: EpisodeRecord) -> int:
        """The index's row for an episode that is added; what it had before is dropped."""
        row = self.index.row(record.episode_id)
        if row is not None:
            known = self._begins[row] != _NOWHERE
            same = self.index.identity(row)[1] == record.revision and self.index.state(row) == HELD
            if same and not known:
                return row
            self._drop(row)
        self._begins.append(_NOWHERE)
        self._shards.append(0)
        return self.index.put(record)

    def _enter(self, record: EpisodeRecord, task: int, begin: int, count: int) -> None:
        row = self._just_added = self._row(record)
        self._begins[row], self._shards[row] = begin, self._team.owner(record.episode_id)
        if count:
            self._pools[task, ONLINE if record.online else OFFLINE].append(row, count)
            if record.online:
                self._online_steps += record.step_count
            self._stale = True

    def _drop(self, row: int) -> None:
        begin, self._begins[row] = self._begins[row], _NOWHERE
        if begin == _NOWHERE:
            return
        if begin != _ELSEWHERE:
            self._store.remove(begin, self.index.steps[row])
            self._cameras.remove(begin, self.index.steps[row])
        if self.index.online(row):
            self._online_steps -= self.index.steps[row]
        for pool in self._pools.values():
            pool.remove(row)
        self._stale = True

    def _refresh(self) -> None:
        if not self._stale:
            return
        begins = np.frombuffer(self._begins, np.int64)
        rows, counts, position = [], [], 0
        for key, pool in self._pools.items():
            found = pool.drawable()
            size = int(found[1].sum())
            self._pool_begins[key], self._sizes[key] = position, size
            rows.append(found[0])
            counts.append(found[1])
            position += size
        self._tasks = np.flatnonzero(self._sizes.any(axis=1))
        self._full = bool(self._sizes.all())
        self._rows = np.concatenate(rows)
        ends = np.cumsum(np.concatenate(counts), dtype=np.int64)
        # Place p of the drawable frames lies in row p + base of the store, less what is skipped there.
        self._bases = begins[self._rows]
        self._bases[1:] -= ends[:-1]
        self._ends = ends
        # `near` has the entry of each place that is a multiple of 2**shift: about one for each entry.
        self._shift = max(0, (position // max(1, len(ends))).bit_length() - 1)
        marks = -(-ends >> self._shift)
        self._near = np.repeat(np.arange(len(ends), dtype=np.int32), np.diff(marks, prepend=0))
        self._hops = int(np.diff(self._near, append=np.int32(len(ends) - 1)).max(initial=0))
        if self._team.ranks > 1:
            self._owners = np.frombuffer(self._shards, np.int16)[self._rows].astype(np.int64)
        self._stale = False
