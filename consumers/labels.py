"""Labels: what people say of an episode after the fact, and what that makes of it.

A label is a late event of its episode, with an id in place of a sequence. A revision holds the union of all that
came, so their order does not matter, nor how often they come: of two that speak of the same thing the later one
counts, by their own time. What the robot said stays in the payload.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from consumers.assembly import Sealed
from consumers.dead_letters import DeadLetter, Reason
from consumers.emitted import EmittedLog, is_settled
from consumers.episode import OpenEpisode
from consumers.payload import PayloadUnreadable, folder, read_facts
from consumers.records import Origin
from consumers.tombstone import is_tombstone
from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from schemas.events import ClosedBy, EpisodeLabelled
from schemas.topics import EPISODE_LABELS

LABEL_BYTES = 2_000
"""Rough cost of a label in memory, beside its text."""

Owner = tuple[str, int]
"""Robot and boot epoch."""


@dataclass
class Decided:
    """What became of labels: late events of stored episodes, or dead letters."""

    sealed: list[Sealed] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)


class LabelDesk:
    """Labels of one partition number that wait for their episode.

    Those of an episode that is under way wait until it is stored. Those of one that nobody knows wait as long as a
    silent episode does, and are dead letters then.

    Args:
        timeout: seconds, in Kafka's append time.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout_ms = int(timeout * 1000)
        self._watermark_ms = 0
        self._waiting: dict[str, list[tuple[EpisodeLabelled, Origin]]] = {}
        self._asked: set[str] = set()

    def add(self, labels: Iterable[tuple[EpisodeLabelled, Origin]]) -> None:
        """Take labels in, in Kafka's order."""
        for event, place in labels:
            self._waiting.setdefault(event.episode_id, []).append((event, place))

    def advance(self, watermark_ms: int) -> None:
        """Everything that robots appended before `watermark_ms` (since the epoch) has been read."""
        self._watermark_ms = max(self._watermark_ms, watermark_ms)

    def first_offset(self, position: int) -> int:
        """Offset from which a successor must read to have what waits here; at most `position`."""
        return min([position, *(place.offset for _, place in self._all())])

    def oldest_ms(self) -> int | None:
        """Append time of the oldest label that waits."""
        return min((place.appended_ms for _, place in self._all()), default=None)

    def wanted(self, under_way: Collection[str], emitted: EmittedLog) -> list[str]:
        """Episodes whose owner must be looked up before their labels can go on.

        Args:
            under_way: ids of episodes that are open, or sealed and not stored.
            emitted: what is announced.
        """
        return [
            episode_id
            for episode_id, labels in self._waiting.items()
            if episode_id not in under_way
            and _owner_in(emitted, episode_id) is None
            and (episode_id not in self._asked or self._expired(labels))
        ]

    def decide(
        self, under_way: Collection[str], emitted: EmittedLog, owners: Mapping[str, Owner | None]
    ) -> Decided:
        """Let go of the labels whose episode is stored, or known to nobody for too long.

        Args:
            under_way: ids of episodes that are open, or sealed and not stored.
            emitted: what is announced.
            owners: of announced episodes that are no longer in `emitted`, as far as they were looked up; None
                where nobody knows the episode.
        """
        out = Decided()
        for episode_id, labels in list(self._waiting.items()):
            if episode_id in under_way:
                continue
            owner = _owner_in(emitted, episode_id)
            if owner is None and episode_id not in owners:
                continue
            owner = owner or owners[episode_id]
            if owner is None and not self._expired(labels):
                self._asked.add(episode_id)
                continue
            del self._waiting[episode_id]
            self._asked.discard(episode_id)
            _settle(out, episode_id, owner, labels)
        return out

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def kept_bytes(self) -> int:
        """Roughly what waits holds of memory."""
        return sum(LABEL_BYTES + 2 * len(place.value or b"") for _, place in self._all())

    def _expired(self, labels: Sequence[tuple[EpisodeLabelled, Origin]]) -> bool:
        return self._watermark_ms - labels[-1][1].appended_ms > self._timeout_ms

    def _all(self) -> Iterable[tuple[EpisodeLabelled, Origin]]:
        return (label for labels in self._waiting.values() for label in labels)


def _owner_in(emitted: EmittedLog, episode_id: str) -> Owner | None:
    known = emitted.episode(episode_id)
    return (known.robot_id, known.boot_epoch) if known is not None and known.revision > 0 else None


def announced_owner(episode_id: str, committed: Mapping[str, int], objects: ObjectStore) -> Owner | None:
    """Whose an episode is of which a revision was announced, as the object store tells; None if there is none.

    As long as the events of an object were not committed it may be an orphan, and its episode is under way again.
    Offsets of another robot's partition mean nothing here, and need not: the owner is all that is asked.

    Raises:
        ObjectStoreUnavailable: call again.
    """
    for key in objects.list(folder(episode_id)):
        if is_tombstone(key):
            continue
        try:
            facts = read_facts(objects.get(key))
        except (ObjectMissing, PayloadUnreadable):
            continue
        if is_settled(facts.source_offsets, committed):
            return facts.robot_id, facts.boot_epoch
    return None


def _settle(
    out: Decided, episode_id: str, owner: Owner | None, labels: Sequence[tuple[EpisodeLabelled, Origin]]
) -> None:
    if owner is None:
        text = f"nobody knows episode {episode_id}: it was not recorded, or by another robot than its label says"
        out.dead += [DeadLetter(place, Reason.UNKNOWN_EPISODE, text) for _, place in labels]
        return
    good = []
    for event, place in labels:
        if event.robot_id == owner[0]:
            good.append((event.label, place))
        else:
            text = f"episode {episode_id} is not {event.robot_id}'s"
            out.dead.append(DeadLetter(place, Reason.FOREIGN_EPISODE, text))
    if good:
        late = OpenEpisode(episode_id, *owner)
        late.late_labels = good
        # Kafka's time of a label says nothing of how long the episode was under way: `touch` would count it.
        late.partition = good[0][1].partition
        late.offsets[EPISODE_LABELS] = (good[0][1].offset, good[-1][1].offset)
        # Labels close nothing: of a revision that they alone make, `storing` keeps what the one before says.
        out.sealed.append(Sealed(late, ClosedBy.TIMEOUT))
