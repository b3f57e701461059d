"""Reading the committed topics for an audit: whole spans, announcements, dead letters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from consumers.audit.progress import Advance
from infra.decoder import event_in
from infra.kafka import LogReader, Message, Partition
from infra.registry import Registry
from schemas.events import EpisodeMaterialized

SILENCE = 60.0
"""Seconds without a record after which Kafka counts as away; a killed member's transaction ends after 10."""

Spans = dict[Partition, tuple[int, int]]
"""First offset, and the one after the last, by partition."""


def spans_of(reader: LogReader, topics: Sequence[str]) -> Spans:
    """All that these topics hold now."""
    return {p: reader.bounds(p) for topic in topics for p in reader.partitions(topic)}


def size_of(spans: Mapping[Partition, tuple[int, int]]) -> int:
    """How many offsets lie in spans; control records count, too."""
    return sum(end - first for first, end in spans.values())


def scan(reader: LogReader, spans: Spans, advance: Advance) -> Iterator[list[Message]]:
    """Batches of records, each of one partition.

    Raises:
        KafkaUnavailable: nothing came for `SILENCE` seconds.
        OffsetsExpired: retention deleted what was about to be read; run the command again.
    """
    done = 0
    at = {partition: first for partition, (first, _) in spans.items()}
    for messages in reader.scan(spans, silence=SILENCE):
        by_partition: dict[Partition, list[Message]] = defaultdict(list)
        for message in messages:
            by_partition[(str(message.topic()), int(message.partition() or 0))].append(message)
        for partition, batch in by_partition.items():
            yield batch
            passed = int(batch[-1].offset() or 0) + 1
            advance(passed - at[partition])
            done += passed - at[partition]
            at[partition] = passed
    advance(size_of(spans) - done)  # control records at the ends


def announcement_of(message: Message, registry: Registry) -> EpisodeMaterialized:
    """The announcement in a record of the training stream.

    Raises:
        SchemaError: it holds none.
        RegistryUnavailable: its schema could not be looked up.
    """
    return event_in(message.value(), EpisodeMaterialized, registry.schema_of)
