"""Reading a topic as a log: no group, no commits, from wherever one likes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence

import stamina
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.errors import KafkaUnavailable, OffsetsExpired
from infra.kafka.config import Partition, client_config, open_client, passes_by_itself
from infra.settings import KafkaSettings

BEGINNING = -2
"""Offset that stands for the oldest record."""
READ_SILENCE = 60.0
"""Seconds without progress; a killed member's open transaction (at most 10 s) is waited for."""


class LogReader:
    """Follows partitions from given offsets and sees committed records only.

    Raises (all methods):
        KafkaUnavailable: no answer in time.
        OffsetsExpired: the records asked for were deleted by retention.
        SettingInvalid: making it; see `open_client`.
    """

    def __init__(self, kafka: KafkaSettings, client_id: str) -> None:
        self._timeout = kafka.request_timeout
        self._ends: dict[Partition, int] = {}
        group = f"{client_id}-{uuid.uuid4().hex}"  # librdkafka wants one; it is never joined
        # A read_committed consumer is told that a partition ends where its first open transaction begins.
        self._surveyor = open_client(
            Consumer,
            {
                **client_config(kafka, f"{client_id}-bounds"),
                "group.id": group,
                "isolation.level": "read_uncommitted",
            },
        )
        self._consumer = open_client(
            Consumer,
            {
                **client_config(kafka, client_id),
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "queued.max.messages.kbytes": 32_768,
                "fetch.wait.max.ms": 50,
            },
        )

    def partitions(self, topic: str) -> list[Partition]:
        """All partitions of a topic."""
        try:
            metadata = self._consumer.list_topics(topic, self._timeout).topics[topic]
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        if metadata.error is not None:
            raise KafkaUnavailable(f"{topic}: {metadata.error.str()}. Has `sop deploy` run?")
        return [(topic, number) for number in sorted(metadata.partitions)]

    def bounds(self, partition: Partition) -> tuple[int, int]:
        """First offset that is still held, and the one after the last, open transactions included."""
        try:
            for attempt in stamina.retry_context(on=passes_by_itself, attempts=None, timeout=self._timeout):
                with attempt:
                    low, high = self._surveyor.get_watermark_offsets(TopicPartition(*partition), self._timeout)
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        return low, high

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets on (`BEGINNING` for the oldest record)."""
        self._ends = {}
        self._consumer.assign([TopicPartition(*partition, offset) for partition, offset in offsets.items()])

    @property
    def ends(self) -> dict[Partition, int]:
        """Where the partitions end whose end was reached since `assign`, control records included."""
        return dict(self._ends)

    def consume(self, count: int, timeout: float) -> list[Message]:
        """At most `count` records, waiting at most `timeout` seconds for the first.

        What came beside an error is lost to the caller: `assign` anew before reading on.
        """
        records = []
        for message in self._consumer.consume(count, timeout):
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ends[(str(message.topic()), int(message.partition() or 0))] = int(message.offset() or 0)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise OffsetsExpired(f"{message.topic()}[{message.partition()}]: {error.str()}")
            else:  # what passes by itself librdkafka tries again
                raise KafkaUnavailable(f"{message.topic()}[{message.partition()}]: {error.str()}")
        return records

    def read_to_end(
        self, offsets: Mapping[Partition, int], silence: float, batch: int = 5_000
    ) -> Iterator[Message]:
        """Records from `offsets` to what is the end now, open transactions included once they are settled.

        Args:
            offsets: where to begin, by partition.
            silence: seconds without any progress after which KafkaUnavailable is raised.
            batch: records taken at once.
        """
        bounds = {partition: self.bounds(partition) for partition in offsets}
        targets = {partition: high for partition, (_, high) in bounds.items()}
        # What retention took is not asked for: BEGINNING lies below every offset.
        starts = {partition: max(offset, bounds[partition][0]) for partition, offset in offsets.items()}
        pending = {partition for partition, target in targets.items() if target > starts[partition]}
        self.assign({partition: starts[partition] for partition in pending})
        heard = time.monotonic()
        while pending:
            records = self.consume(batch, 0.2)
            yield from records
            if records:
                heard = time.monotonic()
            elif time.monotonic() - heard > silence:
                raise KafkaUnavailable(f"nothing came from {sorted(pending)} within {silence:.0f} s")
            # The end-of-partition event counts control records, which positions of delivered records do not.
            pending = {p for p in pending if self._ends.get(p, -1) < targets[p]}

    def scan(
        self, spans: Mapping[Partition, tuple[int, int]], *, silence: float, batch: int = 5_000
    ) -> Iterator[list[Message]]:
        """Batches of records from the first offset of each span to before its second, however long that takes.

        Args:
            spans: first offset, and the one after the last, by partition; both lie in what the log holds.
            silence: seconds without any progress after which KafkaUnavailable is raised.
            batch: records taken at once.
        """
        pending = {partition for partition, (first, end) in spans.items() if first < end}
        self.assign({partition: spans[partition][0] for partition in pending})
        heard = time.monotonic()
        while pending:
            records = []
            before = dict(self._ends)
            for message in self.consume(batch, 0.2):
                partition = (str(message.topic()), int(message.partition() or 0))
                heard = time.monotonic()
                if int(message.offset() or 0) < spans[partition][1]:
                    records.append(message)
                else:
                    pending.discard(partition)
            # The end-of-partition event counts control records, behind which no record may ever come.
            done = {p for p in pending if self._ends.get(p, -1) >= spans[p][1]}
            pending -= done
            if done or self._ends != before:
                heard = time.monotonic()
            if records:
                yield records
                heard = time.monotonic()  # whoever takes them may be slow
            elif pending and time.monotonic() - heard > silence:
                raise KafkaUnavailable(f"nothing came from {sorted(pending)} within {silence:.0f} s")

    def close(self) -> None:
        """Let go of the connections."""
        self._surveyor.close()
        self._consumer.close()


def all_partitions(reader: LogReader, topics: Sequence[str]) -> dict[Partition, int]:
    """Every partition of `topics` at its beginning, as `assign` and `read_to_end` take it."""
    return {partition: BEGINNING for topic in topics for partition in reader.partitions(topic)}
