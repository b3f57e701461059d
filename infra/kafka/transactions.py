"""A producer whose records and consumer offsets become visible together, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from infra.errors import KafkaUnavailable, ProducerFenced, TransactionAborted
from infra.kafka.bounded import within
from infra.kafka.config import PARTITIONER, Partition, client_config, open_client
from infra.kafka.producer import OutRecord
from infra.settings import KafkaSettings

_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}
"""What an abort does to the rest: not its reason."""

_REQUEST_BYTES = 100_000_000
_GRACE_SECONDS = 5.0
"""How much longer than its own bound a call may take before it is given up."""


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """Next offset to read, and up to 4 KB of text that is committed with it."""

    offset: int
    metadata: str = ""


class TransactionalProducer:
    """One transaction at a time, of records and offsets.

    A newer producer with the same `transactional_id` fences this one. After ProducerFenced the object
    is finished; make a new one if the work is still yours.

    Raises:
        KafkaUnavailable: the coordinator did not answer.
        ProducerFenced: another producer took the id over.
        SettingInvalid: making it; see `open_client`.
    """

    def __init__(self, kafka: KafkaSettings, transactional_id: str, *, timeout: float) -> None:
        self._timeout = timeout
        self._producer = open_client(
            Producer,
            {
                **client_config(kafka, transactional_id),
                "transactional.id": transactional_id,
                "transaction.timeout.ms": int(timeout * 1000),
                # librdkafka refuses a request that may take longer than the transaction that it is part of.
                "socket.timeout.ms": int(min(kafka.request_timeout, timeout) * 1000),
                "compression.type": "zstd",
                "partitioner": PARTITIONER,
                # The topic's own limit decides, which an operator can raise; this one is a broker's for a request.
                "message.max.bytes": _REQUEST_BYTES,
                "linger.ms": 5,
            },
        )
        try:
            self._producer.init_transactions(timeout + 20.0)
        except KafkaException as error:
            raise _translate(error) from error

    def commit(
        self,
        records: Sequence[OutRecord],
        offsets: Mapping[Partition, CommittedOffset] | None = None,
        group: Any = None,
    ) -> list[int]:
        """Write `records` and commit `offsets` for the consumer `group` as one; the records' offsets.

        Raises:
            TransactionAborted: nothing is visible; the same call may be made again.
            ProducerFenced: nothing is visible, and this producer is finished.
            KafkaUnavailable: the outcome of the commit is unknown; make a new producer with the same id, whose
                start settles it, and read back what was written.
        """
        written = [-1] * len(records)
        failures: list[str] = []
        try:
            self._producer.begin_transaction()
            for index, record in enumerate(records):
                self._produce(record, index, written, failures)
            if offsets:
                positions = [
                    TopicPartition(topic, number, value.offset, value.metadata)
                    for (topic, number), value in offsets.items()
                ]
                sending = partial(self._producer.send_offsets_to_transaction, positions, group, self._timeout)
                within(self._timeout + _GRACE_SECONDS, sending, "send_offsets_to_transaction")
            committing = partial(self._producer.commit_transaction, self._timeout + 5.0)
            within(self._timeout + 5.0 + _GRACE_SECONDS, committing, "commit_transaction")
        except KafkaException as error:
            raise self._abort(error, failures) from error
        if failures or -1 in written:
            raise KafkaUnavailable(f"a committed transaction lacks delivery reports: {failures[:1]}")
        return written

    def _produce(self, record: OutRecord, index: int, written: list[int], failures: list[str]) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                if error.code() not in _PURGED:
                    failures.append(_refusal(error, record))
                return
            offset = message.offset()
            written[index] = -1 if offset is None else offset

        while True:
            try:
                self._producer.produce(
                    record.topic,
                    value=record.value,
                    key=record.key,
                    headers=list(record.headers),
                    partition=record.partition,
                    on_delivery=report,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                return

    def _abort(self, error: KafkaException, failures: Sequence[str]) -> Exception:
        translated = _translate(error)
        if isinstance(translated, ProducerFenced):
            return translated
        kafka_error: KafkaError = error.args[0]
        if kafka_error.retriable() and not kafka_error.txn_requires_abort():
            return KafkaUnavailable(f"transaction not settled: {kafka_error.str()}")
        try:
            aborting = partial(self._producer.abort_transaction, self._timeout + 5.0)
            within(self._timeout + 5.0 + _GRACE_SECONDS, aborting, "abort_transaction")
        except KafkaException as second:
            return _translate(second)
        except KafkaUnavailable as second:
            return second
        return TransactionAborted(failures[0] if failures else kafka_error.str())


def _refusal(error: KafkaError, record: OutRecord) -> str:
    if error.code() != KafkaError.MSG_SIZE_TOO_LARGE:
        return error.str()
    size, key = len(record.value or b""), (record.key or b"").decode(errors="replace")
    return (
        f"{record.topic} takes no record of {size} bytes (key {key!r}): raise the topic's max.message.bytes, "
        "and it goes on"
    )


def _translate(error: KafkaException) -> Exception:
    kafka_error: KafkaError = error.args[0]
    if kafka_error.code() in _FENCED or kafka_error.fatal():
        return ProducerFenced(kafka_error.str())
    return KafkaUnavailable(kafka_error.str())
