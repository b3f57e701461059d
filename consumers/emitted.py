"""What one partition number has already put on the training stream and on dead-letters.

After a restart events are read again from the oldest open episode on. This memory, filled by reading
training-episodes and dead-letters forward from the positions that were committed with the offsets, is why
nothing is put there twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from consumers.episode import OpenEpisode
from consumers.ranges import RangeSet
from consumers.vectors import Bools, Ints
from schemas.events import EpisodeMaterialized, OffsetRange

REMEMBERED = 10_000
"""Settled episodes kept to recognise duplicates as they arrive; about 0.5 KB each."""


@dataclass(slots=True)
class Emitted:
    """The newest revision of an episode; `position` is its offset in training-episodes.

    From sealing until the payload is stored `revision` is that of the revision before, or 0; until the transaction
    is committed, so is `position`, or None.
    """

    episode_id: str
    robot_id: str
    boot_epoch: int
    revision: int
    sequences: RangeSet
    source_offsets: tuple[OffsetRange, ...]
    payload_uri: str
    position: int | None
    buried: RangeSet = field(default_factory=RangeSet)
    """Sequences among them that were given up before the start came; no revision lists them yet."""

    def settled(self, committed: Mapping[str, int]) -> bool:
        """Whether all its events lie before the committed offsets (by topic): they are never read again."""
        return is_settled(self.source_offsets, committed)


def is_settled(offsets: tuple[OffsetRange, ...], committed: Mapping[str, int]) -> bool:
    """Whether all of `offsets` lie before `committed`, next offsets by topic."""
    return all(part.last < committed.get(part.topic, 0) for part in offsets)


def _merged(one: tuple[OffsetRange, ...], other: tuple[OffsetRange, ...]) -> tuple[OffsetRange, ...]:
    """One range for each partition: what counts is where the last event lies."""
    spans: dict[tuple[str, int], tuple[int, int]] = {}
    for part in (*one, *other):
        first, last = spans.get((part.topic, part.partition), (part.first, part.last))
        spans[part.topic, part.partition] = min(first, part.first), max(last, part.last)
    return tuple(
        OffsetRange(topic=topic, partition=partition, first=first, last=last)
        for (topic, partition), (first, last) in spans.items()
    )


class EmittedLog:
    """Episodes and dead letters that are on their topics, for one partition number."""

    def __init__(self) -> None:
        self._episodes: dict[str, Emitted] = {}
        self._unsettled: set[str] = set()
        self._dead: dict[tuple[str, int], int | None] = {}
        self._given_up: defaultdict[str, set[int]] = defaultdict(set)
        self._given_up_in_order: dict[str, Ints] = {}
        self.end_of_training = 0
        self.end_of_dead_letters = 0

    def remember(self, event: EpisodeMaterialized, position: int | None) -> None:
        """An announcement that is on training-episodes (or, without a position, about to be)."""
        sequences = RangeSet.of((*event.sequences, *event.rejected))
        emitted = Emitted(
            event.episode_id,
            event.robot_id,
            event.boot_epoch,
            event.revision,
            sequences,
            event.source_offsets,
            event.payload_uri,
            position,
        )
        known = self._episodes.pop(event.episode_id, None)
        if known is not None and known.revision > event.revision:
            emitted = known
        elif known is not None:
            emitted.sequences.update(known.sequences)
            emitted.buried = known.buried
        self._episodes[event.episode_id] = emitted  # moves to the end: the least recently used goes first
        self._unsettled.add(event.episode_id)
        if position is not None:
            self.end_of_training = max(self.end_of_training, position + 1)

    def recall(self, event: EpisodeMaterialized, position: int, committed: Mapping[str, int]) -> None:
        """An announcement that a successor reads; it counts if one of its events is read again."""
        if is_settled(event.source_offsets, committed):
            self.end_of_training = max(self.end_of_training, position + 1)
        else:
            self.remember(event, position)

    def recall_dead(
        self, topic: str, offset: int, position: int, committed: Mapping[str, int], *, given_up: bool = False
    ) -> None:
        """A dead letter that a successor reads; it counts if its record is read again.

        Records of topics that are not in `committed` were buried by others.
        """
        if topic in committed and offset >= committed[topic]:
            self.remember_dead(topic, offset, position, given_up=given_up)
        else:
            self.end_of_dead_letters = max(self.end_of_dead_letters, position + 1)

    def expect(self, episode: OpenEpisode) -> None:
        """The episode was sealed: its events are duplicates from now on, although nothing is announced yet."""
        before = self._episodes.get(episode.episode_id)
        sequences = episode.accounted()
        offsets = episode.source_offsets()
        if before is not None:
            sequences.update(before.sequences)
            offsets = _merged(before.source_offsets, offsets)
        self._unsettled.add(episode.episode_id)
        self._episodes[episode.episode_id] = Emitted(
            episode.episode_id,
            episode.robot_id,
            episode.boot_epoch,
            before.revision if before else 0,
            sequences,
            offsets,
            before.payload_uri if before else "",
            before.position if before else None,
            before.buried if before else RangeSet(),
        )

    def bury(
        self, owner: tuple[str, str, int], sequences: RangeSet, source_offsets: tuple[OffsetRange, ...]
    ) -> None:
        """Events of an episode (`owner`: its id, robot, boot epoch) are given up: duplicates from now on."""
        before = self._episodes.get(owner[0])
        if before is None:
            before = self._episodes[owner[0]] = Emitted(*owner, 0, RangeSet(), (), "", None)
        before.sequences.update(sequences)
        before.buried.update(sequences)
        before.source_offsets = _merged(before.source_offsets, source_offsets)
        self._unsettled.add(owner[0])

    def remember_dead(self, topic: str, offset: int, position: int | None, *, given_up: bool = False) -> None:
        """A dead letter that is on dead-letters (or about to be); `given_up`: its start did not come in time."""
        self._dead[(topic, offset)] = position
        if given_up:
            self._given_up[topic].add(offset)
            self._given_up_in_order.pop(topic, None)
        if position is not None:
            self.end_of_dead_letters = max(self.end_of_dead_letters, position + 1)

    def episode(self, episode_id: str) -> Emitted | None:
        """The newest revision of an episode that is known here."""
        return self._episodes.get(episode_id)

    def is_dead(self, topic: str, offset: int) -> bool:
        """Whether this record already is a dead letter."""
        return (topic, offset) in self._dead

    def is_given_up(self, topic: str, offset: int) -> bool:
        """Whether this record is a dead letter because no start came in time, whatever comes now."""
        return offset in self._given_up[topic]

    @property
    def gave_up(self) -> bool:
        """Whether there is any such record."""
        return any(self._given_up.values())

    def given_up(self, topic: str, offsets: Ints) -> Bools:
        """Which of the records at these offsets of a topic, int64[n], are such, bool[n]."""
        known = self._given_up[topic]
        if not known:
            return np.zeros(len(offsets), np.bool_)
        if (ordered := self._given_up_in_order.get(topic)) is None:
            ordered = self._given_up_in_order[topic] = np.sort(np.fromiter(known, np.int64, len(known)))
        at = np.minimum(np.searchsorted(ordered, offsets), len(ordered) - 1)
        found: Bools = ordered[at] == offsets
        return found

    @property
    def unsettled(self) -> int:
        """Episodes with events that a successor would read again."""
        return len(self._unsettled)

    def __len__(self) -> int:
        return len(self._episodes)

    def positions(self, committed: Mapping[str, int]) -> tuple[int, int]:
        """Where a successor must begin to read training-episodes and dead-letters, given committed offsets.

        Everything that was announced from events at or after those offsets lies at or after these positions.
        """
        waiting = (self._episodes[episode_id] for episode_id in self._unsettled)
        training = [e.position for e in waiting if e.position is not None and not e.settled(committed)]
        dead = [
            position
            for (topic, offset), position in self._dead.items()
            if position is not None and offset >= committed.get(topic, 0)
        ]
        return min(training, default=self.end_of_training), min(dead, default=self.end_of_dead_letters)

    def forget_settled(self, committed: Mapping[str, int]) -> None:
        """Everything that was sealed is committed: let go of what will not be read again.

        The newest `REMEMBERED` episodes stay, to recognise duplicates.
        """
        for key in [k for k in self._dead if k[1] < committed.get(k[0], 0)]:
            del self._dead[key]
            self._given_up[key[0]].discard(key[1])
            self._given_up_in_order.pop(key[0], None)
        for episode_id in list(self._unsettled):
            emitted = self._episodes[episode_id]
            if emitted.settled(committed):
                self._unsettled.remove(episode_id)
        for episode_id in list(self._episodes)[: max(0, len(self._episodes) - REMEMBERED)]:
            if episode_id not in self._unsettled:
                del self._episodes[episode_id]
