"""`sop gc`: objects that nothing names any more, after a grace period. In doubt an object stays.

Removed are, under `episodes/`, older revisions, what was never announced, and tombstones of what was not buried;
under `frames/` what no newest revision refers to; under `policies/` artifacts of versions that were never
announced. What a checkpoint or a journal names stays: a learner that resumes, or a version that is trained again,
reads it.
Checkpoints are the learner's own to prune; names that are not ours are left alone.
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
from consumers.audit.announced import Announcements, Episode, episode_of
from consumers.audit.buried import Buried, Place, buried_in
from consumers.audit.progress import Stages
from consumers.audit.reading import Spans, announcement_of, scan, size_of, spans_of
from consumers.audit.tombstones import in_vain
from consumers.emitted import is_settled
from consumers.payload import PayloadUnreadable, read_payload
from consumers.tombstone import TombstoneUnreadable, is_tombstone, read_tombstone
from infra.clock import Clock, SystemClock
from infra.decoder import event_in
from infra.errors import DeploymentConflict, ObjectMissing
from infra.kafka import LogReader, Message
from infra.kafka.positions import Positions
from infra.object_store import Entry, ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.events import EpisodeBoundary, PolicyVersion
from schemas.topics import DEAD_LETTERS, EPISODE_TOPICS, POLICY_VERSIONS, ROBOT_EPISODES, TRAINING_EPISODES

AT_ONCE = 8
"""Objects that are looked at, or removed, at the same time."""

_FRAMES = "frames nobody refers to"
_POLICY = re.compile(r"policies/([\w-]+)/(\d+)-([0-9a-f]{64})\.safetensors")

_log = structlog.get_logger(__name__)


@dataclass
class Collected:
    """What was removed, or would be: objects and bytes by why; and how many objects were looked at and stay."""

    objects: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Named:
    """Everything that says that an object is needed, taken before the bucket is looked at.

    `committed`: the materializer's next offsets by partition. `artifacts`: keys of announced policies.
    `newest_version`: by policy. `held`: keys that checkpoints name, and payloads that were announced twice over.
    `buried`: dead letters, of which `dead` was read.
    `arriving`: episodes with events that the materializer has not passed for good.
    """

    announcements: Announcements
    committed: dict[Place, int]
    artifacts: frozenset[str]
    newest_version: dict[str, int]
    held: frozenset[str]
    buried: Buried
    dead: Spans
    arriving: frozenset[str] = frozenset()


def collect(
    settings: Settings,
    grace: timedelta,
    *,
    dry_run: bool,
    stages: Stages | None = None,
    clock: Clock | None = None,
) -> Collected:
    """Remove what nothing names, and what was so for longer than `grace`.

    Raises:
        infra.errors.Unavailable: a server does not answer; what was removed until then needed not stay.
        DeploymentConflict: the bucket and the stream do not look like parts of one system; nothing was removed.
    """
    stages, objects = stages or Stages(), ObjectStore(settings.s3)
    before = (clock or SystemClock()).now() - grace
    named = _read_names(settings, objects, stages)
    _refuse_strangers(named, objects)
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
        return _reason_of_payload(entry.key, payload, named, before, objects)
    if is_tombstone(entry.key):
        return "never buried" if _in_vain(entry.key, named, objects) else None
    if (artifact := _POLICY.fullmatch(entry.key)) is not None:
        newest = named.newest_version.get(artifact[1], 0)
        # The version after the newest may be announced next, from a checkpoint.
        if entry.key not in named.artifacts and int(artifact[2]) <= newest:
            return "policy never announced"
    return None


def _reason_of_payload(
    key: str, payload: tuple[str, int], named: Named, before: datetime, objects: ObjectStore
) -> str | None:
    episode = named.announcements.episodes.get(payload[0])
    if episode is not None and payload[1] < episode.newest.number:
        return "older revision" if episode.newest.materialized_at < before.timestamp() else None
    if episode is not None and key == episode.newest.key:
        return None
    return "never announced" if _settled(key, named.committed, objects) else None


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
        return old
    if episode.newest.frame_objects == len(stored.entries) or episode.newest.materialized_at >= before.timestamp():
        return []
    wanted = footage.referred(episode, objects)
    return [] if wanted is None else [entry for entry in old if entry.key not in wanted]


def _settled(key: str, committed: dict[Place, int], objects: ObjectStore) -> bool:
    """Whether all events of a payload lie before the committed offsets: whoever stored it will not announce it."""
    try:
        parts = read_payload(objects.get(key)).facts.source_offsets
    except (ObjectMissing, PayloadUnreadable):
        return False
    return all(is_settled((part,), {part.topic: committed.get((part.topic, part.partition), 0)}) for part in parts)


def _in_vain(key: str, named: Named, objects: ObjectStore) -> bool:
    try:
        tombstone = read_tombstone(key, objects.get(key))
    except (ObjectMissing, TombstoneUnreadable):
        return False
    return in_vain(tombstone, named.committed, named.buried, named.dead)


def _read_names(settings: Settings, objects: ObjectStore, stages: Stages) -> Named:
    """Committed offsets first: what is announced later was stored from events after them."""
    reader, registry = LogReader(settings.kafka, "gc"), Registry(settings.registry)
    try:
        robots = [partition for topic in EPISODE_TOPICS for partition in reader.partitions(topic)]
        committed = Positions(settings.kafka).committed(settings.materializer.group, robots)
        arriving = _arriving(reader, registry, committed)
        spans = spans_of(reader, [TRAINING_EPISODES, POLICY_VERSIONS])
        dead = spans_of(reader, [DEAD_LETTERS])
        lacking = [number for (topic, number), (low, _) in spans.items() if topic == TRAINING_EPISODES and low > 0]
        if lacking:
            raise DeploymentConflict(
                f"{TRAINING_EPISODES} no longer begins at 0 in partitions {lacking}: what was announced cannot be "
                "told from what was not. Nothing was removed"
            )
        announcements, artifacts, held = Announcements(objects.uri("")), set(), set(_held(objects))
        newest: Counter[str] = Counter()
        with stages.stage("announcements", size_of(spans)) as advance:
            for messages in scan(reader, spans, advance):
                for message in messages:
                    if message.topic() == POLICY_VERSIONS:
                        if message.value() is None:
                            continue
                        version = _policy_version(message, registry)
                        artifacts.add(version.artifact_uri.removeprefix(objects.uri("")))
                        newest[version.policy] = max(newest[version.policy], version.version)
                    else:
                        event = announcement_of(message, registry)
                        place = int(message.partition() or 0), int(message.offset() or 0)
                        if list(announcements.add(event, *place)):  # `sop reconcile` says what is wrong with it
                            held.add(event.payload_uri.removeprefix(objects.uri("")))
        with stages.stage("dead-letters", size_of(dead)) as advance:
            buried = buried_in(scan(reader, dead, advance))
    finally:
        reader.close()
    return Named(
        announcements, committed, frozenset(artifacts), dict(newest), frozenset(held), buried, dead, arriving
    )


def _arriving(reader: LogReader, registry: Registry, committed: dict[Place, int]) -> frozenset[str]:
    """Episodes of which the materializer has not passed every event on robot-episodes for good."""
    spans = {
        place: (max(low, committed.get(place, 0)), end)
        for place, (low, end) in spans_of(reader, [ROBOT_EPISODES]).items()
    }
    found: set[str] = set()
    for messages in scan(reader, spans, lambda _: None):
        for message in messages:
            try:
                found.add(event_in(message.value(), EpisodeBoundary, registry.schema_of).episode_id)
            except SchemaError:
                continue  # a dead letter soon
    return frozenset(found)


def _policy_version(message: Message, registry: Registry) -> PolicyVersion:
    return event_in(message.value(), PolicyVersion, registry.schema_of)


def _held(objects: ObjectStore) -> frozenset[str]:
    """Keys that checkpoints and journals name. Whatever looks like an address of ours in their JSON counts."""
    address = re.compile(re.escape(objects.uri("").encode()) + rb"([\w./-]+)")
    found: set[str] = set()
    for entry in objects.entries("checkpoints/"):
        try:
            data = objects.get(entry.key)
        except ObjectMissing:
            continue  # the learner pruned it; what replaced it is younger, and names no less
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        found.update(match.decode() for match in address.findall(header))
    for entry in objects.entries("journals/"):
        try:
            found.update(match.decode() for match in address.findall(objects.get(entry.key)))
        except ObjectMissing:
            continue  # what a version's own file says again
    return frozenset(found)


def _entries(objects: ObjectStore) -> Iterator[Entry]:
    yield from objects.entries("episodes/")
    yield from objects.entries("policies/")


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
