"""Episodes that wait on disk until a line begins with them."""

from __future__ import annotations

import itertools
import os
import weakref
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from learner.episode_index import EpisodeIndex
from learner.episodes import Episode, Frames
from learner.frames import Room
from learner.tracks import pack_tracks, unpack_tracks


def keep_all(episodes: Iterable[Episode], room: Room) -> Sequence[Episode]:
    """All of them, in their order, on disk: one at a time is in memory."""
    kept = KeptEpisodes(room)
    return kept.chosen([kept.keep(episode) for episode in episodes])


class KeptEpisodes:
    """Episodes of whatever kind, by number from 0, in a file without a name: one at a time is in memory."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._file = room.file()
        weakref.finalize(self, os.close, self._file)
        self._end = 0
        self._records = EpisodeIndex()
        self._places, self._widths = array("q"), array("i")
        self._tracks = array("q")

    def __len__(self) -> int:
        return len(self._places)

    def episode(self, number: int) -> Episode:
        """One of them."""
        record, begin, count = self._records.record(number), self._places[number], self._records.steps[number]
        state, action = self._widths[2 * number], self._widths[2 * number + 1]
        data = os.pread(self._file, 4 * count * (3 + state + action), begin)
        words = np.frombuffer(data, np.float32)
        cuts = np.cumsum([0, count, count, count, count * state, count * action])
        index, human, rewards, states, actions = (words[a:b] for a, b in itertools.pairwise(cuts))
        frames = Frames(
            index=index.view(np.int32),
            human=human.view(np.int32) != 0,
            states=states.reshape(count, state),
            actions=actions.reshape(count, action),
            rewards=rewards,
        )
        tracks = os.pread(self._file, self._tracks[number], begin + len(data))
        return Episode(record, frames, unpack_tracks(tracks))

    def keep(self, episode: Episode) -> int:
        """Write one; its number.

        Raises:
            DiskFull: if the room says so.
        """
        frames = episode.frames
        parts: list[npt.NDArray[Any]] = [
            frames.index.view(np.float32),
            frames.human.astype(np.int32).view(np.float32),
            frames.rewards,
            frames.states.reshape(-1),
            frames.actions.reshape(-1),
        ]
        data = np.concatenate(parts).astype(np.float32, copy=False)
        tracks = pack_tracks(episode.tracks)
        self._room.write(self._file, data.view(np.uint8).data, self._end)
        self._room.write(self._file, memoryview(tracks), self._end + 4 * len(data))
        self._places.append(self._end)
        self._widths.extend((frames.states.shape[1], frames.actions.shape[1]))
        self._tracks.append(len(tracks))
        self._end += 4 * len(data) + len(tracks)
        return self._records.put(episode.record)

    def chosen(self, numbers: Sequence[int]) -> Sequence[Episode]:
        """Some of them, in this order, each read when it is asked for."""
        return _Chosen(self, numbers)


class _Chosen(Sequence[Episode]):
    def __init__(self, kept: KeptEpisodes, numbers: Sequence[int]) -> None:
        self._kept, self._numbers = kept, array("q", numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Episode: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Episode]: ...

    def __getitem__(self, place: int | slice) -> Episode | Sequence[Episode]:
        if isinstance(place, slice):
            return _Chosen(self._kept, self._numbers[place])
        return self._kept.episode(self._numbers[place])
