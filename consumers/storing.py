"""Sealed episodes become objects: look for what is stored already, make the file, put it there.

Payloads are facts. An object that no announcement names (left by a member that was killed or fenced) is true, and
harmless; whoever takes over stores the same bytes under the same key again.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from consumers.assembly import Sealed, never_started
from consumers.dead_letters import DeadLetter
from consumers.emitted import Emitted, EmittedLog, is_settled
from consumers.episode import OpenEpisode
from consumers.payload import Payload, PayloadUnreadable, StoredPayload, build_payload, folder, read_payload
from consumers.ranges import RangeSet
from consumers.revision import merged
from infra.clock import Clock
from infra.errors import ObjectMissing
from infra.object_store import ObjectStore
from schemas.events import EpisodeMaterialized

_log = structlog.get_logger(__name__)

_ONE_AT_A_TIME = threading.Lock()
"""Files are made by one thread at a time: several fight for the interpreter, and take a third more CPU."""


@dataclass
class Stored:
    """What became of a sealed episode: an announcement, dead letters, or nothing (all of it was stored before)."""

    announcement: EpisodeMaterialized | None = None
    dead: list[DeadLetter] = field(default_factory=list)


def store(
    sealed: Sealed, emitted: EmittedLog, committed: Mapping[str, int], objects: ObjectStore, clock: Clock
) -> Stored:
    """Store one sealed episode, as a new revision if one was announced before. May be called again for the same.

    Args:
        sealed: the episode.
        emitted: what is announced already.
        committed: next offsets by topic, as last committed.
        objects: where payloads go.
        clock: gives the announcement its time.

    Raises:
        ObjectStoreUnavailable: nothing is decided; call again.
    """
    episode = sealed.episode
    known = emitted.episode(episode.episode_id)
    before = _newest_announced(episode, known, committed, objects)
    closed_by, revision = sealed.closed_by, known.revision + 1 if known else 1
    dead = episode.letters(before.accounted() if before else RangeSet())
    if before is not None:
        union, unfit = merged(before, episode)
        dead += unfit
        if union is None:
            return Stored(dead=dead)
        episode, revision = union, before.facts.revision + 1
        closed_by = union.closed_by() or closed_by
    if episode.started is None:
        return Stored(dead=[*dead, *never_started(episode)])
    with _ONE_AT_A_TIME:
        payload = build_payload(episode, closed_by, revision)
    uri = objects.put(payload.key, payload.data)
    return Stored(_announcement(payload, uri, clock), dead)


def announced_before(
    episode: OpenEpisode, emitted: EmittedLog, committed: Mapping[str, int], objects: ObjectStore
) -> RangeSet:
    """Sequences of the newest announced revision of an episode; none if there is no such revision.

    Raises:
        ObjectStoreUnavailable: call again.
    """
    before = _newest_announced(episode, emitted.episode(episode.episode_id), committed, objects)
    return before.accounted() if before else RangeSet()


def _announcement(payload: Payload, uri: str, clock: Clock) -> EpisodeMaterialized:
    return payload.facts.announcement(uri=uri, sha256=payload.sha256, size=len(payload.data), at=clock.now())


def _newest_announced(
    episode: OpenEpisode, known: Emitted | None, committed: Mapping[str, int], objects: ObjectStore
) -> StoredPayload | None:
    """The newest revision that is on the training stream.

    If it is not in memory, all events of an announced revision lie before the committed offsets. An object whose
    events do not is an orphan of this very episode, stored by a member that never committed.
    """
    if known is not None and known.revision > 0:
        return _read(objects, objects.key(known.payload_uri))
    found = (_read(objects, key) for key in objects.list(folder(episode.episode_id)))
    announced = [
        one
        for one in found
        if one is not None
        and (one.facts.robot_id, one.facts.boot_epoch) == (episode.robot_id, episode.boot_epoch)
        and is_settled(one.facts.source_offsets, committed)
    ]
    # An orphan can be settled as well, even under a higher revision (two in one go, then killed).
    # It never holds more than what was announced once its events are settled; so the largest is the base.
    return max(announced, key=_extent, default=None)


def _read(objects: ObjectStore, key: str) -> StoredPayload | None:
    try:
        return read_payload(objects.get(key))
    except (ObjectMissing, PayloadUnreadable) as error:
        # Somebody removed or damaged it. What is here now is all there is; say so, and go on with it.
        _log.error("payload_unusable", key=key, error=str(error), hint="restore it from a backup, if there is one")
        return None


def _extent(stored: StoredPayload) -> tuple[int, int]:
    facts = stored.facts
    return sum(part.last - part.first + 1 for part in (*facts.sequences, *facts.rejected)), facts.revision
