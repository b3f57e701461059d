"""Writing, reading and waiting, as the tests of this folder need it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from confluent_kafka import Producer

from infra.kafka import EventProducer, LogReader, Message, OutRecord
from infra.settings import KafkaSettings

PATIENCE = 180.0
"""Seconds until a test gives up; far more than anything takes, so that a slow machine is not a failure."""


def write(kafka: KafkaSettings, records: Iterable[OutRecord]) -> list[int]:
    """Store records; their offsets."""
    offsets: list[int] = []
    producer = EventProducer(kafka, "test-writer", linger_ms=0)
    for record in records:
        assert producer.send(record, lambda error, offset: offsets.append(-1 if error else offset))
    assert producer.flush(PATIENCE) == 0
    assert -1 not in offsets
    return offsets


def numbered(topic: str, partition: int, count: int, start: int = 0) -> list[OutRecord]:
    """Records whose values are `<partition>:<number>`."""
    return [
        OutRecord(topic, b"k", f"{partition}:{number}".encode(), partition=partition)
        for number in range(start, start + count)
    ]


def values(messages: Iterable[Message]) -> list[str]:
    """Values as text."""
    return [bytes(message.value() or b"").decode() for message in messages]


def visible(kafka: KafkaSettings, topic: str) -> list[str]:
    """Values that a reader sees once everything is settled, partition by partition."""
    reader = LogReader(kafka, "test-reader")
    try:
        found = list(reader.read_to_end(dict.fromkeys(reader.partitions(topic), 0), PATIENCE))
    finally:
        reader.close()
    return values(sorted(found, key=lambda message: (message.partition() or 0, message.offset() or 0)))


@contextmanager
def open_transaction(
    kafka: KafkaSettings, transactional_id: str, records: Iterable[OutRecord]
) -> Iterator[Producer]:
    """Records on the broker whose transaction is open; aborted at the end unless it was settled."""
    producer = Producer(
        {"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": transactional_id, "log_level": 0}
    )
    producer.init_transactions(PATIENCE)
    producer.begin_transaction()
    for record in records:
        producer.produce(record.topic, record.value, partition=record.partition)
    assert producer.flush(PATIENCE) == 0
    yield producer


def until(condition: Callable[[], bool], turn: Callable[[], object]) -> None:
    """Take turns until the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        turn()
