"""What says that an object is needed: announcements, dead letters, policies, checkpoints, journals.

All of it is read before the bucket is looked at, and the materializer's committed offsets first of all: what is
announced later was stored from events after them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from consumers.audit.announced import Announcements
from consumers.audit.buried import Buried, Place, buried_in
from consumers.audit.findings import Kind
from consumers.audit.progress import Stages
from consumers.audit.reading import Spans, announcement_of, scan, size_of, spans_of
from infra.decoder import event_in
from infra.errors import DeploymentConflict, ObjectMissing
from infra.kafka import LogReader, Message
from infra.kafka.positions import committed_offsets
from infra.object_store import Entry, ObjectStore
from infra.payload_names import payloads_in
from infra.registry import Registry
from infra.settings import Settings
from schemas.errors import SchemaError
from schemas.events import EpisodeBoundary, EpisodeMaterialized, PolicyVersion
from schemas.topics import DEAD_LETTERS, EPISODE_TOPICS, POLICY_VERSIONS, ROBOT_EPISODES, TRAINING_EPISODES


@dataclass(frozen=True, slots=True)
class Named:
    """Everything that says that an object is needed.

    `committed`: the materializer's next offsets by partition. `artifacts`: keys of announced policies.
    `newest_version`: by policy. `held`: keys that checkpoints and journals name, and payloads of announcements
    that contradict one another. `buried`: dead letters, of which `dead` was read.
    `arriving`: episodes with events that the materializer has not passed for good.
    `began`: when the first record that is left was appended, by topic.
    """

    announcements: Announcements
    committed: dict[Place, int]
    artifacts: frozenset[str]
    newest_version: dict[str, int]
    held: frozenset[str]
    buried: Buried
    dead: Spans
    arriving: frozenset[str]
    began: dict[str, datetime]

    def predates(self, entry: Entry, topic: str) -> bool:
        """Whether an object is older than everything on a topic, which so says nothing about it.

        It may have been announced on a topic of that name that was lost.
        """
        began = self.began.get(topic)
        return began is None or entry.modified < began.replace(microsecond=0)  # S3 keeps whole seconds


def read_names(settings: Settings, objects: ObjectStore, stages: Stages) -> Named:
    """Read everything that names objects.

    Raises:
        infra.errors.Unavailable: a server does not answer.
        DeploymentConflict: the training stream does not begin at 0.
    """
    reader, registry = LogReader(settings.kafka, "gc"), Registry(settings.registry)
    try:
        robots = [partition for topic in EPISODE_TOPICS for partition in reader.partitions(topic)]
        committed = committed_offsets(settings.kafka, settings.materializer.group, robots)
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
        began: dict[str, int] = {}
        with stages.stage("announcements", size_of(spans)) as advance:
            for messages in scan(reader, spans, advance):
                for message in messages:
                    topic, appended_ms = str(message.topic()), message.timestamp()[1]
                    began[topic] = min(appended_ms, began.get(topic, appended_ms))
                    if topic == POLICY_VERSIONS:
                        if message.value() is None:
                            continue
                        version = _policy_version(message, registry)
                        artifacts.add(version.artifact_uri.removeprefix(objects.uri("")))
                        newest[version.policy] = max(newest[version.policy], version.version)
                    else:
                        event = announcement_of(message, registry)
                        place = int(message.partition() or 0), int(message.offset() or 0)
                        held.update(in_doubt(announcements, event, *place))
        with stages.stage("dead-letters", size_of(dead)) as advance:
            buried = buried_in(scan(reader, dead, advance))
    finally:
        reader.close()
    times = {topic: datetime.fromtimestamp(appended_ms / 1000, UTC) for topic, appended_ms in began.items()}
    return Named(
        announcements,
        committed,
        frozenset(artifacts),
        dict(newest),
        frozenset(held),
        buried,
        dead,
        arriving,
        times,
    )


def in_doubt(
    announcements: Announcements, event: EpisodeMaterialized, partition: int, offset: int
) -> Iterator[str]:
    """Take in an announcement; keys of payloads that stay because it contradicts another one.

    `sop reconcile` says what is wrong. Of a revision that lacks what its predecessor has, the predecessor is what
    is left of it.
    """
    known = announcements.episodes.get(event.episode_id)
    before = known.newest.key if known is not None else ""
    for finding in announcements.add(event, partition, offset):
        yield announcements.key_of(event)
        if finding.kind is Kind.MISSING:
            yield before


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
    """Keys that checkpoints and journals name: what looks like an address of ours in their JSON, and payloads."""
    ours = objects.uri("")
    address = re.compile(re.escape(ours.encode()) + rb"([\w./-]+)")
    found: set[str] = set()
    for entry in objects.entries("checkpoints/"):
        try:
            data = objects.get(entry.key)
        except ObjectMissing:
            continue  # the learner pruned it; what replaced it is younger, and names no less
        header = data[8 : 8 + int.from_bytes(data[:8], "little")]
        found.update(match.decode() for match in address.findall(header))
        found.update(uri.removeprefix(ours) for uri in payloads_in(data) if uri.startswith(ours))
    for entry in objects.entries("journals/"):
        try:
            found.update(match.decode() for match in address.findall(objects.get(entry.key)))
        except ObjectMissing:
            continue  # what a version's own file says again
    return frozenset(found)
