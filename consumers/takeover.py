"""Taking a partition number over: from its committed offsets, and from what was announced since."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from consumers.dead_letters import Reason, headers, place_of
from consumers.emitted import EmittedLog
from consumers.partition import OwnedPartition, resume_positions
from infra.decoder import event_in
from infra.kafka import GroupConsumer, LogReader, Message, Partition
from infra.kafka.log_reader import READ_SILENCE
from infra.registry import Registry
from schemas.errors import SchemaError
from schemas.events import EpisodeMaterialized
from schemas.topics import DEAD_LETTERS, EPISODE_TOPICS, ROBOT_TOPICS, TRAINING_EPISODES

_log = structlog.get_logger(__name__)

ATTEND_EVERY = 100
"""Records between two calls of `attend`; an announcement takes some 100 µs."""


def take_over(
    number: int,
    consumer: GroupConsumer,
    reader: LogReader,
    registry: Registry,
    timeout: float,
    *,
    attend: Callable[[], None] = lambda: None,
) -> OwnedPartition:
    """State of a partition number as its last owner left it. `attend` is called while history is read.

    The committed offsets are fetched first: that waits for every transaction that holds offsets open, so all that
    such a transaction announced is on the topics when they are read.

    Raises:
        KafkaUnavailable, RegistryUnavailable: not now; try again.
        OffsetsExpired: no offsets are committed.
    """
    partitions = [(topic, number) for topic in EPISODE_TOPICS]
    epochs = {partition: consumer.epochs[partition] for partition in partitions}
    committed = consumer.committed(partitions)
    # Every commit says it in all topics; the first offsets of a topic that is new say nothing.
    starts = [resume_positions(committed[topic, number].metadata) for topic in ROBOT_TOPICS]
    offsets = {topic: value.offset for (topic, _), value in committed.items()}
    emitted = read_emitted(
        reader,
        registry,
        {
            (TRAINING_EPISODES, number): min(training for training, _ in starts),
            (DEAD_LETTERS, number): min(dead for _, dead in starts),
        },
        offsets,
        attend,
    )
    for partition, value in committed.items():
        consumer.seek(partition, value.offset)
    _log.info("partition_taken_over", number=number, offsets=offsets, announced=len(emitted))
    return OwnedPartition(number, epochs, offsets, emitted, timeout)


def read_emitted(
    reader: LogReader,
    registry: Registry,
    starts: Mapping[Partition, int],
    committed: Mapping[str, int],
    attend: Callable[[], None],
) -> EmittedLog:
    """Announcements and dead letters from the given positions to the end.

    What was made of records before `committed`, next offsets by topic, is not kept: none of those is read again.
    So a group whose offsets were set anew may read all of history, and holds what it needs.
    """
    emitted = EmittedLog()
    ends = {topic: reader.bounds((topic, number))[1] for topic, number in starts}
    for count, message in enumerate(reader.read_to_end(starts, READ_SILENCE)):
        if count % ATTEND_EVERY == 0:
            attend()
        position = int(message.offset() or 0)
        try:
            if message.topic() == TRAINING_EPISODES:
                emitted.recall(_announcement(message, registry), position, committed)
            else:
                topic, _, offset = place_of(message)
                given_up = headers(message).get("reason") == Reason.NEVER_STARTED
                emitted.recall_dead(topic, offset, position, committed, given_up=given_up)
        except (SchemaError, ValueError) as error:
            # Somebody else wrote it: it says nothing about what this group announced.
            _log.warning("not_ours", topic=message.topic(), offset=position, error=str(error))
    emitted.end_of_training = max(emitted.end_of_training, ends[TRAINING_EPISODES])
    emitted.end_of_dead_letters = max(emitted.end_of_dead_letters, ends[DEAD_LETTERS])
    return emitted


def _announcement(message: Message, registry: Registry) -> EpisodeMaterialized:
    return event_in(message.value(), EpisodeMaterialized, registry.schema_of)
