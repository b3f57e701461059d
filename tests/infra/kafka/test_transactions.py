"""Records and offsets become visible together, or leave no trace; whoever is out of date is told."""

from __future__ import annotations

import os
import threading
from contextlib import closing, suppress
from typing import Any

import pytest
from confluent_kafka import Producer

from infra.errors import KafkaUnavailable, ProducerFenced, TransactionAborted
from infra.kafka import CommittedOffset, GroupConsumer, LogReader, OutRecord, TransactionalProducer, transactions
from infra.kafka.admin import ClusterAdmin
from infra.kafka.config import MESSAGE_BYTES
from infra.settings import Settings
from schemas.topics import TOPICS
from tests.infra.conftest import MakeTopic
from tests.infra.kafka.helpers import PATIENCE, numbered, until, visible, write

BATCH_OVERHEAD = 100


def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    zombie = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    zombie.commit(numbered(name, 0, 1))
    successor = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    with pytest.raises(ProducerFenced):
        zombie.commit(numbered(name, 0, 1, start=1))
    successor.commit(numbered(name, 0, 1, start=2))
    assert visible(settings.kafka, name) == ["0:0", "0:2"]


def test_records_and_offsets_with_their_text_are_committed_together(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topic = make_topic(partitions=2)
    ClusterAdmin(settings.kafka).ensure_first_offsets(name, [topic])
    text = "training=17;dead=3 µ" * 190
    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    offsets = {(name, 0): CommittedOffset(5, text), (name, 1): CommittedOffset(0)}
    with closing(GroupConsumer(settings.kafka, name, [name])) as member:
        until(lambda: len(member.assigned) == 2, lambda: member.consume(1, 0.1))
        assert producer.commit(numbered(name, 1, 1), offsets, member.group_metadata()) == [0]
        stale = member.group_metadata()
    assert visible(settings.kafka, name) == ["1:0"]

    with closing(GroupConsumer(settings.kafka, name, [name])) as stranger:
        assert stranger.committed([(name, 0), (name, 1)]) == offsets
        with pytest.raises(TransactionAborted):
            producer.commit(numbered(name, 1, 1, start=1), {(name, 0): CommittedOffset(9, "stale")}, stale)
        assert stranger.committed([(name, 0), (name, 1)]) == offsets
    assert visible(settings.kafka, name) == ["1:0"]
    producer.commit(numbered(name, 1, 1, start=2))
    assert visible(settings.kafka, name) == ["1:0", "1:2"], "an aborted producer goes on"


def test_the_largest_record_a_broker_takes_fits_into_dead_letters_with_its_reason(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    limit = TOPICS["robot-steps"].max_record_bytes
    make_topic("-source", partitions=1, max_record_bytes=limit)
    dead = TOPICS["dead-letters"].model_copy(update={"name": f"{name}-dead", "partitions": 1})
    ClusterAdmin(settings.kafka).ensure_topics([dead])
    largest = os.urandom(limit - BATCH_OVERHEAD)
    foreign = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers, "message.max.bytes": 2_000_000})
    errors: list[object] = []
    foreign.produce(f"{name}-source", largest, key=b"arm", on_delivery=lambda error, _: errors.append(error))
    foreign.flush(PATIENCE)
    assert errors == [None], "nothing that a broker takes may be too large to be buried"

    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    headers = [("topic", b"robot-steps"), ("partition", b"0"), ("offset", b"0"), ("error", b"e" * 1000)]
    assert producer.commit([OutRecord(dead.name, b"arm", largest, headers, 0)]) == [0]
    assert values(settings, dead.name) == [largest]


def test_a_record_that_cannot_be_sent_takes_the_whole_transaction_with_it(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1, max_record_bytes=MESSAGE_BYTES)
    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    too_large = os.urandom(MESSAGE_BYTES + 1)
    with pytest.raises(
        TransactionAborted, match=rf"{name} takes no record of {MESSAGE_BYTES + 1} bytes \(key 'k'\)"
    ):
        producer.commit([*numbered(name, 0, 2), OutRecord(name, b"k", too_large, partition=0)])
    for _ in range(5):  # the first call after a broker's refusal may be aborted for the gap that the refusal left
        with suppress(TransactionAborted):
            producer.commit(numbered(name, 0, 1, start=2))
            break
    assert visible(settings.kafka, name) == ["0:2"]


def test_a_topic_with_a_limit_of_its_own_takes_records_up_to_it_and_readers_get_them(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    limit = TOPICS["training-episodes"].max_record_bytes
    make_topic(partitions=1)
    large = os.urandom(limit - 1_000)
    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    producer.commit([OutRecord(name, b"k", large, partition=0), *numbered(name, 0, 1)])
    assert values(settings, name) == [large, b"0:0"]


def test_a_successor_settles_what_a_killed_predecessor_left_open(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    killed = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    killed._producer.begin_transaction()
    killed._producer.produce(name, b"open", partition=0)
    assert killed._producer.flush(PATIENCE) == 0
    TransactionalProducer(settings.kafka, name, timeout=PATIENCE).commit(numbered(name, 0, 1))
    assert visible(settings.kafka, name) == ["0:0"]


def test_a_transaction_of_nothing_is_fine(settings: Settings, make_topic: MakeTopic, name: str) -> None:
    make_topic(partitions=1)
    assert TransactionalProducer(settings.kafka, name, timeout=PATIENCE).commit([]) == []
    assert visible(settings.kafka, name) == []


def test_records_written_beside_a_transaction_are_none_of_its_business(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    write(settings.kafka, numbered(name, 0, 1))
    assert producer.commit(numbered(name, 0, 2, start=1)) == [1, 2]
    assert visible(settings.kafka, name) == ["0:0", "0:1", "0:2"]


def values(settings: Settings, topic: str) -> list[bytes | None]:
    """What a reader of partition 0 gets, byte for byte."""
    with closing(LogReader(settings.kafka, topic)) as reader:
        return [message.value() for message in reader.read_to_end({(topic, 0): 0}, PATIENCE)]


class Stuck:
    """A producer whose call for a coordinator that is gone does not return, as librdkafka's may not."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.released = threading.Event()

    def send_offsets_to_transaction(self, *_: object) -> None:
        self.released.wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)


def test_a_coordinator_that_is_never_found_leaves_the_outcome_open_and_a_new_producer_goes_on(
    settings: Settings, make_topic: MakeTopic, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_topic(partitions=1)
    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    stuck = Stuck(producer._producer)
    producer._producer = stuck  # type: ignore[assignment]
    with monkeypatch.context() as patch:
        patch.setattr(transactions, "_GRACE_SECONDS", 0.5 - PATIENCE)
        with pytest.raises(KafkaUnavailable, match="send_offsets_to_transaction did not return"):
            producer.commit(numbered(name, 0, 1), {(name, 0): CommittedOffset(5)}, object())
    TransactionalProducer(settings.kafka, name, timeout=PATIENCE).commit(numbered(name, 0, 1, start=1))
    stuck.released.set()
    assert visible(settings.kafka, name) == ["0:1"]
