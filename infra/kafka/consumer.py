"""A member of a consumer group (KIP-848) that owns its partition numbers in all of its topics.

The `range` assignor is the only incremental one that gives a member the same partition numbers of every
topic; a partition number counts as owned only once that is so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from operator import methodcaller
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from infra.errors import GroupRefused, KafkaUnavailable, OffsetsExpired
from infra.kafka.bounded import within
from infra.kafka.config import Partition, client_config, open_client
from infra.kafka.positions import ask_committed
from infra.kafka.transactions import CommittedOffset
from infra.settings import KafkaSettings

ASSIGNOR = "range"
"""Of those that a coordinator has, the one that gives a member the same partition numbers of every topic."""

_log = structlog.get_logger(__name__)

Failure = KafkaUnavailable | OffsetsExpired | GroupRefused

_error_of = methodcaller("error")


class GroupConsumer:
    """Reads topics as a member of `group`; offsets are committed by the caller only.

    `assigned` holds the partitions that are ours now. It changes inside `consume`, so a batch may hold records
    of a partition that was taken away while it was collected: such records are left out. `epochs` counts how often
    each was assigned: one that went away and came back is told from one that stayed.

    Raises:
        KafkaUnavailable: no answer in time, or a topic is missing.
        SettingInvalid: see `open_client`.
    """

    def __init__(
        self, kafka: KafkaSettings, group: str, topics: Sequence[str], *, prefetch_kib: int = 65_536
    ) -> None:
        self.assigned: set[Partition] = set()
        self.epochs: Counter[Partition] = Counter()
        self._unplaced: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._revocations = 0
        self._closing = False
        self._timeout = kafka.request_timeout
        self._group = group
        self._failure: Failure | None = None
        self._consumer = open_client(
            Consumer,
            {
                **client_config(kafka, f"{group}-consumer"),
                "group.id": group,
                "group.protocol": "consumer",
                "group.remote.assignor": ASSIGNOR,
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                # Offsets of an open transaction are not stable; only this level waits for them.
                "isolation.level": "read_committed",
                "queued.max.messages.kbytes": prefetch_kib,
                "fetch.queue.backoff.ms": 10,
                "fetch.wait.max.ms": 50,
            },
        )
        self._require(topics)
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
        )

    def _require(self, topics: Sequence[str]) -> None:
        # Under KIP-848 a member of a group is not told that a topic is missing: it would wait without a word.
        try:
            found = self._consumer.list_topics(timeout=self._timeout).topics
        except KafkaException as error:
            self._consumer.close()
            raise KafkaUnavailable(error.args[0].str()) from error
        if missing := sorted(set(topics) - found.keys()):
            self._consumer.close()
            raise KafkaUnavailable(f"no topic {', '.join(missing)}. Has `sop deploy` run against this cluster?")

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # librdkafka keeps a pause while a partition is another member's, when nobody remembers it any more.
        consumer.resume(partitions)
        wanted = {(p.topic, p.partition) for p in partitions}
        self._paused -= wanted
        try:
            consumer.incremental_assign(self._starts(consumer, wanted))
            if not_yet := self._unplaced & wanted:
                consumer.pause([TopicPartition(*partition) for partition in not_yet])
        except KafkaException as error:
            self._failure = self._failure or KafkaUnavailable(f"cannot take partitions: {error.args[0].str()}")
            self._unplaced -= wanted
            return
        self.assigned |= wanted
        self.epochs.update(wanted)
        _log.info("partitions_assigned", partitions=sorted(wanted))

    def _starts(self, consumer: Consumer, wanted: set[Partition]) -> list[TopicPartition]:
        """Where the group was; where nobody tells that now the beginning, of which nothing is handed out.

        Left to itself librdkafka asks once where to begin: while the coordinator moves nobody answers, it does not
        ask again, and the partition is never read (its issue 5586). Nor is it given the name of a place, as the
        end: it would ask the leader where that is, and if a seek comes before the answer, ask again and go there.
        """
        try:
            if not self._closing:
                return ask_committed(consumer, sorted(wanted), self._timeout)
        except KafkaUnavailable as error:
            _log.warning("offsets_unknown", group=self._group, error=str(error))
        self._unplaced |= wanted
        return [TopicPartition(*partition, 0) for partition in sorted(wanted)]

    def _place(self) -> None:
        """Go to where the group was, in partitions of which that was not known when they came."""
        try:
            for partition, value in self.committed(sorted(self._unplaced)).items():
                self.seek(partition, value.offset)
                self._unplaced.discard(partition)
                if partition not in self._paused:
                    self._consumer.resume([TopicPartition(*partition)])
        except (KafkaUnavailable, OffsetsExpired) as error:
            self._failure = self._failure or error

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        lost = {(p.topic, p.partition) for p in partitions}
        self.assigned -= lost
        self._unplaced -= lost
        self._revocations += 1
        _log.info("partitions_revoked", partitions=sorted(lost))

    def consume(self, count: int, timeout: float) -> list[Message]:
        """At most `count` records, waiting at most `timeout` seconds for the first.

        Raises:
            OffsetsExpired: retention deleted records that were not read yet.
            KafkaUnavailable: a topic went away, or we may not read it.
            GroupRefused: the brokers lack what the group needs, or it is full. Nothing will ever come.
        """
        if self._failure is None:
            before = self.epochs.total() + self._revocations
            records = self._consumer.consume(count, timeout)
            unchanged = before == self.epochs.total() + self._revocations
            if unchanged and not self._unplaced and not any(map(_error_of, records)):
                return records
            records = self._sifted(records)
            if self._unplaced:
                self._place()
            # What came beside an error will not be delivered again: it goes first, the error with the next call.
            if records or self._failure is None:
                return records
        failure, self._failure = self._failure, None
        raise failure

    def _sifted(self, messages: list[Message]) -> list[Message]:
        """Records of partitions that are ours still; the first error is kept for later."""
        records, ours = [], self.assigned - self._unplaced
        for message in messages:
            error, where = message.error(), (message.topic(), message.partition())
            if error is not None:
                if error.code() == KafkaError._AUTO_OFFSET_RESET and where not in ours:
                    continue  # that was not where the group was
                self._failure = self._failure or self._failure_of(error, message)
            elif where in ours:
                records.append(message)
        return records

    def _failure_of(self, error: KafkaError, message: Message) -> Failure | None:
        # Of a message the flag is not set; in `error_cb` it is.
        if error.fatal() or error.code() == KafkaError._FATAL:
            return GroupRefused(
                f"the brokers do not take us into the group {self._group}: {error.str()}. It needs Kafka >= 4.0 "
                f"with the consumer protocol (KIP-848) and its assignor {ASSIGNOR!r}, room for one more member "
                f"(group.consumer.max.size), and the right to read as this group"
            )
        where = f"{message.topic()}[{message.partition()}]"
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            return OffsetsExpired(
                f"{where}: {error.str()}. Records were deleted before they were read, or no first offsets were "
                f"committed. Run `sop deploy`; if retention deleted data, an operator must decide where to go on."
            )
        if error.code() in (
            KafkaError.UNKNOWN_TOPIC_OR_PART,
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            return KafkaUnavailable(f"{where}: {error.str()}. Has `sop deploy` run against this cluster?")
        _log.warning("consume_error", where=where, error=error.str())
        return None

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, CommittedOffset]:
        """The group's committed offsets, once no transaction holds them open.

        Raises:
            KafkaUnavailable: no answer in time.
            OffsetsExpired: a partition has no committed offset.
        """
        result: dict[Partition, CommittedOffset] = {}
        for position in ask_committed(self._consumer, partitions, self._timeout):
            if position.offset < 0:
                raise OffsetsExpired(
                    f"{position.topic}[{position.partition}] has no committed offset. Run `sop deploy`."
                )
            result[(position.topic, position.partition)] = CommittedOffset(
                position.offset, position.metadata or ""
            )
        return result

    def commit(self, offsets: Mapping[Partition, CommittedOffset]) -> None:
        """Commit next offsets outside of a transaction.

        Raises:
            KafkaUnavailable: not committed.
        """
        if not offsets:
            return  # librdkafka calls that an error
        try:
            self._consumer.commit(
                offsets=[
                    TopicPartition(topic, number, value.offset, value.metadata)
                    for (topic, number), value in offsets.items()
                ],
                asynchronous=False,
            )
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error

    def seek(self, partition: Partition, offset: int) -> None:
        """Read on from `offset`.

        Raises:
            KafkaUnavailable: the partition is not ours at the moment.
        """
        try:
            self._consumer.seek(TopicPartition(*partition, offset))
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Stop delivering these partitions until `resume`, or until they are assigned anew; membership goes on."""
        self._paused |= set(partitions)
        self._consumer.pause([TopicPartition(*p) for p in partitions])

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Deliver these partitions again."""
        self._paused -= set(partitions)
        self._consumer.resume([TopicPartition(*p) for p in partitions if p not in self._unplaced])

    def end_offset(self, partition: Partition) -> int:
        """The offset after the last record, asked of the broker now.

        Raises:
            KafkaUnavailable: no answer in time.
        """
        try:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), self._timeout)
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        return high

    def lags(self) -> dict[Partition, int]:
        """Records behind what was delivered, by partition, as the last fetches told; nobody is asked.

        On topics that are written in transactions the marker at the end counts as one.

        Raises:
            KafkaUnavailable: a partition was lost just now.
        """
        found = {}
        try:
            for position in self._consumer.position([TopicPartition(*p) for p in self.assigned]):
                high = (self._consumer.get_watermark_offsets(position, cached=True) or (-1, -1))[1]
                if position.offset >= 0 and high >= 0:
                    found[(position.topic, position.partition)] = max(0, high - position.offset)
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        return found

    def group_metadata(self) -> Any:
        """What fences the offsets in a transaction: member and generation. Opaque."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Leave the group, so that others take over at once; given up after the request timeout.

        An assignment that arrives in just this moment blocks librdkafka's close for ever (its issue 4884). The
        coordinator then takes the partitions away when the session times out.
        """
        self._closing = True
        try:
            within(self._timeout, self._consumer.close, "close")
        except KafkaUnavailable as error:
            _log.warning("group_not_left", group=self._group, error=str(error))
