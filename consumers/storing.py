"""Sealed episodes become objects: look for what is stored already, make the file, put it there.

Payloads are facts. An object that no announcement names (left by a member that was killed or fenced) is true, and
harmless; whoever takes over stores the same bytes under the same key again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import structlog

from consumers.assembly import Sealed, never_started
from consumers.dead_letters import DeadLetter
from consumers.emitted import Emitted, EmittedLog, is_settled
from consumers.episode import OpenEpisode
from consumers.payload import (
    Draft,
    Payload,
    PayloadUnreadable,
    StoredPayload,
    draft,
    folder,
    read_payload,
    written,
)
from consumers.ranges import RangeSet
from consumers.revision import merged
from infra.clock import Clock
from infra.errors import InfraError, ObjectMissing
from infra.object_store import ObjectStore
from schemas.events import EpisodeMaterialized

_log = structlog.get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Stored:
    """What became of a sealed episode: an announcement, dead letters, or nothing (all of it was stored before)."""

    announcement: EpisodeMaterialized | None = None
    dead: list[DeadLetter] = field(default_factory=list)


@dataclass
class _Plan:
    """What is to be stored, if anything, and dead letters that came up."""

    draft: Draft | None
    dead: list[DeadLetter]


def store_wave(
    wave: Sequence[Sealed],
    emitted: EmittedLog,
    committed: Mapping[str, int],
    objects: ObjectStore,
    clock: Clock,
    *,
    pool: Executor,
) -> list[Stored | InfraError]:
    """Store several episodes, none of them twice; what became of each, or what stood in the way.

    An episode becomes a new revision if one was announced before. After an error nothing of it is decided: call
    again.

    Args:
        wave: the episodes.
        emitted: what is announced already.
        committed: next offsets by topic, as last committed.
        objects: where payloads go.
        clock: gives announcements their time.
        pool: where the object store is waited for.

    The object store is waited for in `pool`, files are made here: several threads that make files fight for the
    interpreter and for memory, and take a third more CPU. They are made stage by stage, because what a stage runs
    then stays in the processor's caches, which saves a fifth.
    """
    knowns = [emitted.episode(sealed.episode.episode_id) for sealed in wave]
    lookups = [
        pool.submit(_newest_announced, sealed.episode, known, committed, objects)
        for sealed, known in zip(wave, knowns, strict=True)
    ]
    plans = [
        _attempt(_plan_for, sealed, known, lookup)
        for sealed, known, lookup in zip(wave, knowns, lookups, strict=True)
    ]
    uploads = [plan if isinstance(plan, InfraError) else _begin(plan, objects, pool) for plan in plans]
    return [upload if isinstance(upload, InfraError) else _attempt(_finish, upload, clock) for upload in uploads]


@dataclass
class _Upload:
    """A file on its way; or none, and dead letters all the same."""

    payload: Payload | None
    uri: Future[str] | None
    dead: list[DeadLetter]


def _begin(plan: _Plan, objects: ObjectStore, pool: Executor) -> _Upload:
    if plan.draft is None:
        return _Upload(None, None, plan.dead)
    payload = written(plan.draft)
    return _Upload(payload, pool.submit(objects.put, payload.key, payload.data), plan.dead)


def _finish(upload: _Upload, clock: Clock) -> Stored:
    if upload.payload is None or upload.uri is None:
        return Stored(dead=upload.dead)
    return Stored(_announcement(upload.payload, upload.uri.result(), clock), upload.dead)


def _attempt(step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | InfraError:
    """What a step returns, or what stood in its way: the others of a wave go on."""
    try:
        return step(*args, **kwargs)
    except InfraError as error:
        return error


def _plan_for(sealed: Sealed, known: Emitted | None, lookup: Future[StoredPayload | None]) -> _Plan:
    return _plan(sealed, known, lookup.result())


def _plan(sealed: Sealed, known: Emitted | None, before: StoredPayload | None) -> _Plan:
    """The next revision of an episode, of which `before` is the newest that was announced."""
    episode = sealed.episode
    closed_by, revision = sealed.closed_by, known.revision + 1 if known else 1
    dead = episode.letters(before.accounted() if before else RangeSet())
    if before is not None:
        union, unfit = merged(before, episode)
        dead += unfit
        if union is None:
            return _Plan(None, dead)
        episode, revision = union, before.facts.revision + 1
        closed_by = union.closed_by() or closed_by
    if episode.started is None:
        return _Plan(None, [*dead, *never_started(episode)])
    return _Plan(draft(episode, closed_by, revision), dead)


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
