"""Tombstones against dead-letters. Pure: what is there in, findings out."""

from __future__ import annotations

from collections.abc import Mapping

from consumers.audit.buried import Buried, Place
from consumers.audit.findings import Finding, Kind, Where
from consumers.audit.reading import Spans
from consumers.tombstone import Tombstone
from infra.object_store import Entry
from schemas.topics import DEAD_LETTERS


def in_vain(tombstone: Tombstone, committed: Mapping[Place, int], buried: Buried, dead: Spans) -> bool:
    """Whether it is certain that what a tombstone names was not buried by whoever stored it.

    Args:
        tombstone: what was about to be buried.
        committed: the materializer's next offsets by partition, asked for before dead-letters was read.
        buried: dead-letters.
        dead: what was read of it.
    """
    places = [((topic, number), offset) for _, (topic, number, offset) in tombstone.events()]
    if any(offset >= committed.get(place, 0) for place, offset in places):
        return False  # it may still come
    if all(buried.has(place, offset) for place, offset in places):
        return False
    return all(_reaches_back(number, tombstone.appended_ms, buried, dead) for (_, number), _ in places)


def tombstone_in_vain(entry: Entry, tombstone: Tombstone) -> Finding:
    """A tombstone that buried nothing."""
    return Finding(
        Kind.ORPHANED,
        Where.OBJECTS,
        entry.key,
        "a tombstone of events that are not on dead-letters; harmless, `sop gc` removes it",
        episode_id=tombstone.episode_id,
        key=entry.key,
    )


def _reaches_back(number: int, appended_ms: int, buried: Buried, dead: Spans) -> bool:
    """Whether dead-letters still holds everything that was buried after this time."""
    low, _ = dead.get((DEAD_LETTERS, number), (0, 0))
    return low == 0 or buried.oldest_ms.get(number, appended_ms + 1) <= appended_ms
