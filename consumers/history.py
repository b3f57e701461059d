"""What became of an episode before: its newest announced revision, and what of it was buried.

Both lie in the episode's folder on the object store, beside what members left behind that never committed. Kafka's
committed offsets tell what counts, and in the one case that they leave open the topic dead-letters does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from consumers.emitted import Emitted, is_settled
from consumers.episode import OpenEpisode
from consumers.payload import PayloadUnreadable, StoredPayload, folder, read_facts, read_payload
from consumers.ranges import RangeSet
from consumers.steps import Steps
from consumers.tombstone import Place, Tombstone, TombstoneUnreadable, is_tombstone, read_tombstone
from infra.errors import ObjectMissing
from infra.object_store import ObjectStore

_HINT = "restore it from a backup, if there is one"

_log = structlog.get_logger(__name__)


class Graveyard(Protocol):
    """Who knows dead-letters."""

    def holds(
        self, places: Collection[Place], since_ms: int, beat: Callable[[], None] = lambda: None, /
    ) -> set[Place]:
        """Those records of one partition number that are dead letters, buried at `since_ms` (epoch) or later.

        `beat` is called while it takes.

        Raises:
            Unavailable: ask again.
        """


@dataclass(frozen=True, slots=True)
class History:
    """`stored` is the newest announced revision; `buried` are sequences given up because no start came in time."""

    stored: StoredPayload | None = None
    buried: RangeSet = field(default_factory=RangeSet)

    def accounted(self) -> RangeSet:
        """Sequences that need nothing more."""
        both = RangeSet(self.buried)
        if self.stored is not None:
            both.update(self.stored.accounted())
        return both


@dataclass(slots=True)
class Traces:
    """What lies in an episode's folder and is settled: an earlier reading decided about it, one way or another."""

    payloads: list[StoredPayload] = field(default_factory=list)
    tombstones: list[Tombstone] = field(default_factory=list)
    buried: dict[int, set[Place]] = field(default_factory=lambda: defaultdict(set))
    """Settled events that the tombstones name: where they lie, by sequence."""


def facts_alone(data: bytes) -> StoredPayload:
    """A payload read back without its rows, for who asks only what it lists.

    Raises:
        PayloadUnreadable: the bytes are no payload of ours.
    """
    return StoredPayload(read_facts(data), Steps.from_events([], []))


def traces(
    episode: OpenEpisode,
    known: Emitted | None,
    committed: Mapping[str, int],
    objects: ObjectStore,
    read: Callable[[bytes], StoredPayload] = read_payload,
) -> Traces:
    """Look into an episode's folder.

    If a revision is in memory, it is the newest. If none is, all events of an announced revision lie before the
    committed offsets. An object whose events do not is an orphan: whoever stored it never committed.

    Raises:
        ObjectStoreUnavailable: call again.
    """
    found = Traces()
    if known is not None and known.revision > 0:
        newest = _payload(objects, objects.key(known.payload_uri), read)
        found.payloads += [newest] if newest else []
        return found
    owner = episode.robot_id, episode.boot_epoch
    for key in objects.list(folder(episode.episode_id)):
        if is_tombstone(key):
            tombstone = _tombstone(objects, key)
            if tombstone is None or (tombstone.robot_id, tombstone.boot_epoch) != owner:
                continue
            found.tombstones.append(tombstone)
            for sequence, place in tombstone.settled(committed):
                found.buried[sequence].add(place)
        elif (payload := _payload(objects, key, read)) is not None:
            facts = payload.facts
            if (facts.robot_id, facts.boot_epoch) == owner and is_settled(facts.source_offsets, committed):
                found.payloads.append(payload)
    return found


def history(found: Traces, known: Emitted | None, graveyard: Graveyard) -> History:
    """What became of an episode, of which there are these traces.

    Raises:
        Unavailable: dead-letters had to be asked, and cannot be. Call again.
    """
    listed = [RangeSet.of(one.facts.sequences) for one in found.payloads]
    confirmed = _confirmed(found, listed, graveyard)
    # A payload that lists what was buried is an orphan. Others can be settled orphans as well, even under a higher
    # revision (two in one go, then killed), but never hold more than what was announced: the largest is the base.
    announced = [
        payload
        for payload, ranges in zip(found.payloads, listed, strict=True)
        if not any(sequence in ranges for sequence in confirmed)
    ]
    stored = max(announced, key=_extent, default=None)
    buried = RangeSet((sequence, sequence) for sequence in found.buried)
    if known is not None:
        buried.update(known.buried)
    return History(stored, buried.without(RangeSet.of(stored.facts.sequences)) if stored else buried)


def _confirmed(found: Traces, listed: Sequence[RangeSet], graveyard: Graveyard) -> set[int]:
    """Of sequences that both a payload and a tombstone claim, those that were buried.

    One of the objects is of a member that died, or was fenced, before its commit; only dead-letters tell which.
    """
    contested = {s: places for s, places in found.buried.items() if any(s in ranges for ranges in listed)}
    if not contested:
        return set()
    since_ms = min(tombstone.appended_ms for tombstone in found.tombstones)
    held = graveyard.holds(set().union(*contested.values()), since_ms)
    return {sequence for sequence, places in contested.items() if places & held}


def _payload(objects: ObjectStore, key: str, read: Callable[[bytes], StoredPayload]) -> StoredPayload | None:
    try:
        return read(objects.get(key))
    except (ObjectMissing, PayloadUnreadable) as error:
        # Somebody removed or damaged it. What is here now is all there is; say so, and go on with it.
        _log.error("payload_unusable", key=key, error=str(error), hint=_HINT)
        return None


def _tombstone(objects: ObjectStore, key: str) -> Tombstone | None:
    try:
        return read_tombstone(key, objects.get(key))
    except ObjectMissing:
        return None  # `sop gc` took it: nothing was buried
    except TombstoneUnreadable as error:
        _log.error("tombstone_unusable", key=key, error=str(error), hint=_HINT)
        return None


def _extent(stored: StoredPayload) -> tuple[int, int]:
    facts = stored.facts
    events = sum(part.last - part.first + 1 for part in (*facts.sequences, *facts.rejected))
    return events + len(facts.labels), facts.revision
