"""Sealed episodes become objects: look for what is stored already, make the file, put it there.

Payloads are facts. An object that no announcement names (left by a member that was killed or fenced) is true, and
harmless; whoever takes over stores the same bytes under the same key again. What is to be buried because its start
never came is written down in the same way first (tombstone.py).
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from consumers.assembly import Sealed, never_started
from consumers.dead_letters import DeadLetter, Reason
from consumers.emitted import Emitted, EmittedLog
from consumers.episode import OpenEpisode
from consumers.history import Graveyard, History, Traces, facts_alone, history, traces
from consumers.payload import Draft, Payload, draft, written
from consumers.ranges import RangeSet
from consumers.revision import merged, without_buried
from consumers.tombstone import Tombstone, tombstone_of
from infra.clock import Clock
from infra.errors import InfraError
from infra.object_store import ObjectStore
from schemas.events import EpisodeMaterialized

T = TypeVar("T")


class CannotStore(Exception):
    """An episode cannot be stored for a reason that nobody foresaw: waiting may not mend it."""

    @classmethod
    def of(cls, episode_id: str, error: Exception) -> CannotStore:
        """Which episode it is, and what went wrong, where."""
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(at.filename).name}, line {at.lineno}"
        found = cls(f"episode {episode_id} cannot be stored: {error!r} ({where})")
        found.__cause__ = error
        return found


@dataclass
class Stored:
    """What became of a sealed episode: an announcement, dead letters, or nothing (all of it was stored before).

    `tombstone` names the dead letters of an episode whose start never came.
    """

    announcement: EpisodeMaterialized | None = None
    dead: list[DeadLetter] = field(default_factory=list)
    tombstone: Tombstone | None = None


@dataclass
class _Plan:
    """What is to be stored, if anything, and dead letters that came up."""

    draft: Draft | None
    dead: list[DeadLetter]
    tombstone: Tombstone | None = None


def store_wave(
    wave: Sequence[Sealed],
    emitted: EmittedLog,
    committed: Mapping[str, int],
    objects: ObjectStore,
    clock: Clock,
    *,
    graveyard: Graveyard,
    pool: Executor,
) -> list[Stored | InfraError | CannotStore]:
    """Store several episodes, none of them twice; what became of each, or what stood in the way.

    An episode becomes a new revision if one was announced before. After an error nothing of it is decided: call
    again.

    Args:
        wave: the episodes.
        emitted: what is announced already.
        committed: next offsets by topic, as last committed.
        objects: where payloads go.
        clock: gives announcements their time.
        graveyard: is asked, from this thread, when objects contradict one another.
        pool: where the object store is waited for.

    The object store is waited for in `pool`, files are made here: several threads that make files fight for the
    interpreter and for memory, and take a third more CPU. They are made stage by stage, because what a stage runs
    then stays in the processor's caches, which saves a fifth.
    """
    knowns = [emitted.episode(sealed.episode.episode_id) for sealed in wave]
    lookups = [
        pool.submit(traces, sealed.episode, known, committed, objects)
        for sealed, known in zip(wave, knowns, strict=True)
    ]
    plans = [
        attempt(_plan_for, sealed, known, lookup, graveyard, of=sealed.episode.episode_id)
        for sealed, known, lookup in zip(wave, knowns, lookups, strict=True)
    ]
    uploads = [
        attempt(_begin, plan, objects, pool, of=sealed.episode.episode_id) if isinstance(plan, _Plan) else plan
        for sealed, plan in zip(wave, plans, strict=True)
    ]
    return [
        attempt(_finish, upload, clock, of=sealed.episode.episode_id) if isinstance(upload, _Upload) else upload
        for sealed, upload in zip(wave, uploads, strict=True)
    ]


@dataclass
class _Upload:
    """What is planned, with its file, if there is to be one; and the object that is on its way."""

    plan: _Plan
    payload: Payload | None = None
    uri: Future[str] | None = None


def _begin(plan: _Plan, objects: ObjectStore, pool: Executor) -> _Upload:
    if plan.draft is not None:
        payload = written(plan.draft)
        return _Upload(plan, payload, pool.submit(objects.put, payload.key, payload.data))
    if plan.tombstone is not None:
        return _Upload(plan, None, pool.submit(objects.put, plan.tombstone.key, plan.tombstone.data))
    return _Upload(plan)


def _finish(upload: _Upload, clock: Clock) -> Stored:
    uri = upload.uri.result() if upload.uri else ""
    announcement = _announcement(upload.payload, uri, clock) if upload.payload else None
    return Stored(announcement, upload.plan.dead, upload.plan.tombstone)


def attempt(step: Callable[..., T], *args: Any, of: str) -> T | InfraError | CannotStore:
    """What a step returns, or what stood in the way of this episode: the others of a wave go on."""
    try:
        return step(*args)
    except InfraError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not take other episodes along
        return CannotStore.of(of, error)


def _plan_for(sealed: Sealed, known: Emitted | None, lookup: Future[Traces], graveyard: Graveyard) -> _Plan:
    return _plan(sealed, known, history(lookup.result(), known, graveyard))


def _plan(sealed: Sealed, known: Emitted | None, before: History) -> _Plan:
    """The next revision of an episode, of which `before` tells what was announced and what was buried."""
    episode = sealed.episode
    closed_by, revision = sealed.closed_by, known.revision + 1 if known else 1
    dead, only_labels = episode.letters(before.accounted()), not episode.accounted()
    if before.buried:
        without_buried(episode, before.buried)
        closed_by = episode.closed_by() or closed_by
    if before.stored is not None:
        union, unfit = merged(before.stored, episode)
        dead += unfit
        if union is None:
            return _Plan(None, dead)
        facts = before.stored.facts
        episode, revision = union, facts.revision + 1
        # A label says nothing of how the episode came to its end.
        closed_by = union.closed_by() or (facts.closed_by if only_labels else closed_by)
    if episode.started is None:
        return _give_up(episode, before.buried, dead)
    return _Plan(draft(episode, closed_by, revision), dead)


def _give_up(episode: OpenEpisode, before: RangeSet, dead: list[DeadLetter]) -> _Plan:
    """Bury what came without a start. Rejected records are named beside: they must not be buried again either."""
    letters = dict(never_started(episode))
    buried = {sequence: letter.origin for sequence, letter in letters.items()}
    buried |= {sequence: place for sequence, place in episode.rejected_at.items() if sequence not in before}
    tombstone = tombstone_of(episode, buried) if buried else None
    text = f"episode {episode.episode_id} was never announced, or what was stored of it is gone"
    labels = [DeadLetter(place, Reason.UNKNOWN_EPISODE, text) for _, place in episode.late_labels]
    return _Plan(None, [*dead, *letters.values(), *labels], tombstone)


def announced_before(
    episodes: Sequence[OpenEpisode],
    emitted: EmittedLog,
    committed: Mapping[str, int],
    objects: ObjectStore,
    *,
    graveyard: Graveyard,
    pool: Executor,
) -> list[RangeSet | InfraError | CannotStore]:
    """Of each episode the sequences that its newest announced revision has, or that were buried without one."""
    knowns = [emitted.episode(episode.episode_id) for episode in episodes]
    lookups = [
        pool.submit(traces, episode, known, committed, objects, read=facts_alone)
        for episode, known in zip(episodes, knowns, strict=True)
    ]
    return [
        attempt(_accounted, lookup, known, graveyard, of=episode.episode_id)
        for episode, known, lookup in zip(episodes, knowns, lookups, strict=True)
    ]


def _accounted(lookup: Future[Traces], known: Emitted | None, graveyard: Graveyard) -> RangeSet:
    return history(lookup.result(), known, graveyard).accounted()


def _announcement(payload: Payload, uri: str, clock: Clock) -> EpisodeMaterialized:
    return payload.facts.announcement(uri=uri, sha256=payload.sha256, size=len(payload.data), at=clock.now())
