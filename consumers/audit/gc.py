"""`sop gc`: objects that nothing names any more, after a grace period. In doubt an object stays.

Removed are, under `episodes/`, older revisions, what was never announced, and tombstones of what was not buried;
under `frames/` what no newest revision refers to; under `policies/` artifacts of versions that were never
announced; under `halfway/` what was left of a backfill whose version is announced. What a checkpoint or a journal
names stays: a learner that resumes, or a version that is trained again, reads it. Checkpoints are the learner's to
prune; names that are not ours are left alone.

What is older than a topic says nothing for: the topic may have been lost, and then the bucket has the only copy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

import structlog

from consumers.audit import footage
from consumers.audit.announced import Episode, Revision, episode_of
from consumers.audit.buried import Place
from consumers.audit.named import Named, read_names
from consumers.audit.progress import Stages
from consumers.audit.tombstones import in_vain
from consumers.emitted import is_settled
from consumers.payload import PayloadUnreadable, read_facts
from consumers.tombstone import TombstoneUnreadable, is_tombstone, read_tombstone
from infra.belonging import owner_of, refuse_another, write_owner
from infra.clock import Clock, SystemClock
from infra.errors import DeploymentConflict, ObjectMissing
from infra.kafka.identity import cluster_id
from infra.object_store import Entry, ObjectStore
from infra.settings import Settings
from schemas.topics import POLICY_VERSIONS, TRAINING_EPISODES

AT_ONCE = 8
"""Objects that are looked at, or removed, at the same time."""

_FRAMES = "frames nobody refers to"
_POLICY = re.compile(r"policies/([\w-]+)/(\d+)-([0-9a-f]{64})\.safetensors")

_HALFWAY = re.compile(r"halfway/([\w-]+)\.(json|safetensors)")

_log = structlog.get_logger(__name__)


@dataclass
class Collected:
    """What was removed, or would be: objects and bytes by why; and how many objects were looked at and stay."""

    objects: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    kept: int = 0


def collect(
    settings: Settings,
    grace: timedelta,
    *,
    dry_run: bool,
    adopt: bool = False,
    stages: Stages | None = None,
    clock: Clock | None = None,
) -> Collected:
    """Remove what nothing names, and what was so for longer than `grace`.

    Args:
        settings: of the system whose bucket it is.
        grace: what was still needed this long ago stays.
        dry_run: remove nothing.
        adopt: the bucket belongs to this Kafka from now on, whichever filled it.
        stages: shows how far it has come.
        clock: says when `grace` ends.

    Raises:
        infra.errors.Unavailable: a server does not answer; what was removed until then needed not stay.
        DeploymentConflict: the bucket and the stream do not look like parts of one system; nothing was removed.
    """
    stages, objects = stages or Stages(), ObjectStore(settings.s3)
    before = (clock or SystemClock()).now() - grace
    cluster = cluster_id(settings.kafka)
    if not adopt:
        refuse_another(objects, cluster)
    named = read_names(settings, objects, stages)
    _refuse_strangers(named, objects)
    if not dry_run and owner_of(objects) != cluster:
        write_owner(objects, cluster)
    done = Collected()
    with (
        stages.stage("objects", None) as advance,
        ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gc") as pool,
    ):
        entries = _entries(objects)
        while wave := list(islice(entries, AT_ONCE * 16)):
            found = list(pool.map(lambda entry: (entry, reason_to_remove(entry, named, before, objects)), wave))
            doomed = [(entry, reason) for entry, reason in found if reason is not None]
            if not dry_run:
                list(pool.map(lambda pair: objects.delete(pair[0].key), doomed))
            for entry, reason in doomed:
                done.objects[reason] += 1
                done.bytes[reason] += entry.size
                _log.debug("object_removed", key=entry.key, reason=reason, dry_run=dry_run)
            done.kept += len(wave) - len(doomed)
            advance(len(wave))
        for stored in footage.by_episode(objects.entries(footage.FOLDER)):
            removed = _frames_to_remove(stored, named, before, objects)
            if not dry_run:
                list(pool.map(lambda entry: objects.delete(entry.key), removed))
            if removed:
                done.objects[_FRAMES] += len(removed)
                done.bytes[_FRAMES] += sum(entry.size for entry in removed)
            done.kept += len(stored.entries) - len(removed)
            advance(len(stored.entries))
    return done


def reason_to_remove(entry: Entry, named: Named, before: datetime, objects: ObjectStore) -> str | None:
    """Why an object may go; None when it stays.

    Args:
        entry: the object.
        named: what is needed.
        before: what was stored, or replaced by a newer revision, after this may still be read by somebody.
        objects: where an object that nobody announced is read, to find out whether that may still come.
    """
    if entry.modified >= before or entry.key in named.held:
        return None
    if (payload := episode_of(entry.key)) is not None:
        return _reason_of_payload(entry, payload, named, before, objects)
    if is_tombstone(entry.key) and not named.predates(entry, TRAINING_EPISODES):
        return "never buried" if _in_vain(entry.key, named, objects) else None
    if (artifact := _POLICY.fullmatch(entry.key)) is not None:
        newest = named.newest_version.get(artifact[1], 0)
        # The version after the newest may be announced next, from a checkpoint.
        unannounced = entry.key not in named.artifacts and not named.predates(entry, POLICY_VERSIONS)
        if unannounced and int(artifact[2]) <= newest:
            return "policy never announced"
    if (begun := _HALFWAY.fullmatch(entry.key)) is not None and begun[1] in named.newest_version:
        return "backfill that is done"
    return None


def _reason_of_payload(
    entry: Entry, payload: tuple[str, int], named: Named, before: datetime, objects: ObjectStore
) -> str | None:
    episode = named.announcements.episodes.get(payload[0])
    announced = episode is not None and any(r.key == entry.key for r in episode.revisions.values())
    if not announced and named.predates(entry, TRAINING_EPISODES):
        return None
    if episode is None:
        return "never announced" if _settled(entry.key, named.committed, objects) else None
    newest = episode.newest
    if entry.key == newest.key or newest.materialized_at >= before.timestamp():
        return None
    if payload[1] >= newest.number and (announced or not _settled(entry.key, named.committed, objects)):
        return None
    # Where the newest is lost, whatever else there is of the episode may be all that is left of it.
    if not _is_there(newest, objects):
        return None
    return "older revision" if payload[1] < newest.number else "never announced"


def _is_there(revision: Revision, objects: ObjectStore) -> bool:
    """Whether an announced object is in our bucket, with the size that was announced."""
    try:
        return bool(revision.key) and objects.size(revision.key) == revision.size
    except ObjectMissing:
        return False


def _frames_to_remove(stored: footage.Stored, named: Named, before: datetime, objects: ObjectStore) -> list[Entry]:
    """Old objects of an episode's cameras that its newest revision does not refer to.

    A robot puts them right before it sends the event that refers to them. So what is old, and will be referred to,
    belongs to events that are on their way to a payload.
    """
    old = [entry for entry in stored.entries if entry.modified < before and entry.key not in named.held]
    if not old or stored.episode_id in named.arriving:
        return []
    episode = named.announcements.episodes.get(stored.episode_id)
    if episode is None:
        return [entry for entry in old if not named.predates(entry, TRAINING_EPISODES)]
    if episode.newest.frame_objects == len(stored.entries) or episode.newest.materialized_at >= before.timestamp():
        return []
    wanted = footage.referred(episode, objects)
    return [] if wanted is None else [entry for entry in old if entry.key not in wanted]


def _settled(key: str, committed: dict[Place, int], objects: ObjectStore) -> bool:
    """Whether all events of a payload lie before the committed offsets: whoever stored it will not announce it."""
    try:
        parts = read_facts(objects.get(key)).source_offsets
    except (ObjectMissing, PayloadUnreadable):
        return False
    return all(is_settled((part,), {part.topic: committed.get((part.topic, part.partition), 0)}) for part in parts)


def _in_vain(key: str, named: Named, objects: ObjectStore) -> bool:
    try:
        tombstone = read_tombstone(key, objects.get(key))
    except (ObjectMissing, TombstoneUnreadable):
        return False
    return in_vain(tombstone, named.committed, named.buried, named.dead)


def _entries(objects: ObjectStore) -> Iterator[Entry]:
    yield from objects.entries("episodes/")
    yield from objects.entries("policies/")
    yield from objects.entries("halfway/")


def _refuse_strangers(named: Named, objects: ObjectStore) -> None:
    """A bucket most of whose episodes this stream never announced is another system's."""
    ours = strange = 0
    last = ""
    for entry in objects.entries("episodes/"):
        payload = episode_of(entry.key)
        if payload is None or payload[0] == last:
            continue
        last = payload[0]
        known: Episode | None = named.announcements.episodes.get(last)
        ours, strange = ours + (known is not None), strange + (known is None)
    if strange > ours:
        raise DeploymentConflict(
            f"{strange} of {ours + strange} episodes in bucket {objects.bucket} were never announced on this "
            "Kafka: is it another system's bucket? Nothing was removed"
        )
