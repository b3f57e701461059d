"""One partition number that this member owns in all three robot topics: its state, and where it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from consumers.assembly import Assembly, Outcome, Sealed
from consumers.broker_time import BrokerTime
from consumers.dead_letters import DeadLetter
from consumers.decode import Decoded
from consumers.emitted import EmittedLog
from consumers.episode import OpenEpisode
from consumers.labels import LabelDesk, Owner
from consumers.ranges import RangeSet
from consumers.storing import Stored
from infra.kafka import CommittedOffset, Partition
from schemas.events import EpisodeMaterialized
from schemas.topics import EPISODE_LABELS, ROBOT_TOPICS

ANNOUNCEMENT_BYTES = 10_000
"""Rough cost of an announcement in memory."""


@dataclass
class Outbox:
    """What waits for the next transaction."""

    sealed: list[Sealed] = field(default_factory=list)
    announcements: list[EpisodeMaterialized] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.sealed or self.announcements or self.dead)


class OwnedPartition:
    """Everything about partition number `number`.

    `now_ms` is everywhere the member's own clock, of which only differences mean anything; see `BrokerTime`.

    Args:
        number: the partition number.
        epochs: the assignments that it rests on; it is void when they change.
        committed: next offsets by topic when it was taken over.
        emitted: what was announced from offsets that are read again now.
        timeout: seconds of silence after which an episode is sealed as it is.
    """

    def __init__(
        self,
        number: int,
        epochs: Mapping[Partition, int],
        committed: Mapping[str, int],
        emitted: EmittedLog,
        timeout: float,
    ) -> None:
        self.number = number
        self.epochs = dict(epochs)
        self.committed = dict(committed)
        self.positions = dict(committed)
        self.assembly = Assembly(emitted, timeout)
        self.labels = LabelDesk(timeout)
        self.emitted = emitted
        self.outbox = Outbox()
        self.time = BrokerTime()
        self._last_ms: dict[str, int] = {}
        self._timeout_ms = int(timeout * 1000)

    def add(self, batch: Decoded, now_ms: int) -> Outcome:
        """Fold a batch of this partition number in, which was read just now."""
        outcome = self.assembly.add(batch)
        self.labels.add(batch.labels)
        for topic, (offset, appended_ms) in batch.last.items():
            self.positions[topic] = offset + 1
            self._last_ms[topic] = appended_ms
        if batch.last:
            # Another topic's records may be older. What waits was appended by now, whatever was read after it.
            read = [appended_ms for _, appended_ms in batch.last.values()]
            self.time.read(max([*read, *self._open_since()]), now_ms)
        self._keep(outcome)
        return outcome

    def is_due(self, now_ms: int) -> bool:
        """Whether something may have waited for too long, should nothing more lie in the topics."""
        age = self.oldest_age_ms(now_ms)
        return age is not None and age > self._timeout_ms

    def advance(self, now_ms: int, idle: frozenset[str]) -> Outcome:
        """Let time pass: in `idle` topics everything up to now was read, in the others up to the last record."""
        now = self.time.at(now_ms) or 0  # before anything was read nothing waits
        moments = [now if topic in idle else self._last_ms.get(topic, 0) for topic in ROBOT_TOPICS]
        outcome = self.assembly.advance(min(moments))
        self.labels.advance(min(moments))
        self._keep(outcome)
        return outcome

    def oldest_age_ms(self, now_ms: int) -> int | None:
        """For how long the oldest of what waits for something to happen has waited; None when nothing waits."""
        quiet, label = self._open_since(), self.labels.oldest_ms()
        oldest = min(quiet if label is None else [*quiet, label], default=None)
        now = self.time.at(now_ms)
        return None if oldest is None or now is None else now - oldest

    def _open_since(self) -> list[int]:
        """When each open episode was last heard of, by the brokers' clocks."""
        return [episode.appended_ms for episode in self.assembly.open.values()]

    def offsets(self) -> dict[Partition, CommittedOffset]:
        """What to commit: the first offset of the oldest open episode by topic, and where a successor reads on."""
        nexts = {topic: self.assembly.first_offset(topic, at) for topic, at in self.positions.items()}
        nexts[EPISODE_LABELS] = self.labels.first_offset(nexts[EPISODE_LABELS])
        return self._with_positions(nexts)

    def unmoved(self) -> dict[Partition, CommittedOffset]:
        """The offsets that are committed, and where a successor of now reads on."""
        return self._with_positions(self.committed)

    def _with_positions(self, nexts: Mapping[str, int]) -> dict[Partition, CommittedOffset]:
        training, dead = self.emitted.positions(nexts)
        text = json.dumps({"training-episodes": training, "dead-letters": dead}, separators=(",", ":"))
        return {(topic, self.number): CommittedOffset(offset, text) for topic, offset in nexts.items()}

    def committed_now(self, offsets: Mapping[Partition, CommittedOffset]) -> None:
        """The transaction with these offsets, and the whole outbox, is committed."""
        self.committed = {topic: value.offset for (topic, _), value in offsets.items()}
        self.outbox = Outbox()
        self.emitted.forget_settled(self.committed)

    def unstored(self) -> bool:
        """Whether the object store has to be asked or told something before the outbox is complete."""
        return bool(self.outbox.sealed or self.assembly.undecided())

    def has_news(self) -> bool:
        """Whether there is something to commit."""
        return bool(self.outbox) or {t: v.offset for (t, _), v in self.offsets().items()} != self.committed

    def episodes(self) -> list[OpenEpisode]:
        """Episodes that take memory: open ones, and sealed ones that are not stored yet."""
        return [*self.assembly.open.values(), *(sealed.episode for sealed in self.outbox.sealed)]

    def kept_bytes(self) -> int:
        """Roughly what the outbox and waiting labels hold of memory; episodes tell theirs themselves."""
        announced = ANNOUNCEMENT_BYTES * len(self.outbox.announcements)
        return announced + sum(letter.nbytes for letter in self.outbox.dead) + self.labels.kept_bytes

    def decide(self, episode: OpenEpisode, announced: RangeSet) -> Outcome:
        """Let go of dead letters that an open episode holds; `announced` are its sequences of before."""
        outcome = self.assembly.decide(episode, announced)
        self._keep(outcome)
        return outcome

    def unowned_labels(self) -> list[str]:
        """Episodes whose owner must be looked up before their labels can go on."""
        return self.labels.wanted(self._under_way(), self.emitted) if self.labels else []

    def apply_labels(self, owners: Mapping[str, Owner | None]) -> None:
        """Labels whose episode is stored become late events of it; `owners` are those that were looked up."""
        if not self.labels:
            return
        decided = self.labels.decide(self._under_way(), self.emitted, owners)
        self.outbox.sealed += decided.sealed
        self.keep(Stored(dead=decided.dead))

    def _under_way(self) -> set[str]:
        return {*self.assembly.open, *(sealed.episode.episode_id for sealed in self.outbox.sealed)}

    def keep(self, stored: Stored) -> None:
        """A sealed episode was stored: its announcement and dead letters go into the next transaction."""
        for letter in stored.dead:
            place = letter.origin
            if not self.emitted.is_dead(place.topic, place.offset):
                self.emitted.remember_dead(place.topic, place.offset, None)
                self.outbox.dead.append(letter)
        if (tombstone := stored.tombstone) is not None:
            owner = tombstone.episode_id, tombstone.robot_id, tombstone.boot_epoch
            self.emitted.bury(owner, tombstone.sequences, tombstone.source_offsets())
        if stored.announcement is not None:
            self.emitted.remember(stored.announcement, None)
            self.outbox.announcements.append(stored.announcement)

    def _keep(self, outcome: Outcome) -> None:
        self.outbox.sealed += outcome.sealed
        self.outbox.dead += outcome.dead


def resume_positions(metadata: str) -> tuple[int, int]:
    """Where to begin to read training-episodes and dead-letters, from a committed offset's metadata.

    Without metadata (first offsets, or an operator's) everything is read.
    """
    try:
        found = json.loads(metadata)
        return int(found["training-episodes"]), int(found["dead-letters"])
    except (ValueError, KeyError, TypeError):
        return 0, 0
