"""A topic as a log: committed records only, from anywhere, to what is the end now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra.errors import KafkaUnavailable, OffsetsExpired
from infra.kafka import LogReader, TransactionalProducer
from infra.kafka.log_reader import BEGINNING, all_partitions
from infra.settings import Settings
from tests.infra.conftest import MakeTopic
from tests.infra.kafka.helpers import PATIENCE, numbered, open_transaction, until, values, visible, write


@pytest.fixture
def reader(settings: Settings) -> LogReader:
    return LogReader(settings.kafka, "test-reader")


def delete_before(settings: Settings, topic: str, partition: int, offset: int) -> None:
    """What retention does, at once."""
    client = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    place = TopicPartition(topic, partition, offset)
    client.delete_records([place])[place].result(PATIENCE)


def test_everything_is_read_to_the_end_and_each_partition_in_order(
    settings: Settings, make_topic: MakeTopic, name: str, reader: LogReader
) -> None:
    make_topic(partitions=3)
    assert reader.partitions(name) == [(name, 0), (name, 1), (name, 2)]
    assert list(reader.read_to_end(all_partitions(reader, [name]), PATIENCE)) == []
    write(settings.kafka, [*numbered(name, 0, 40), *numbered(name, 2, 3)])
    assert reader.bounds((name, 0)) == (0, 40)
    found = list(reader.read_to_end(all_partitions(reader, [name]), PATIENCE, batch=7))
    assert values(m for m in found if m.partition() == 0) == [f"0:{n}" for n in range(40)]
    assert values(m for m in found if m.partition() == 2) == ["2:0", "2:1", "2:2"]
    assert values(reader.read_to_end({(name, 0): 38}, PATIENCE)) == ["0:38", "0:39"]
    assert list(reader.read_to_end({(name, 0): 40}, PATIENCE)) == []


def test_a_reader_follows_what_is_written_after_it_was_assigned(
    settings: Settings, make_topic: MakeTopic, name: str, reader: LogReader
) -> None:
    make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 2))
    reader.assign({(name, 0): 1})
    seen: list[str] = []
    until(lambda: seen == ["0:1"], lambda: seen.extend(values(reader.consume(10, 0.1))))
    write(settings.kafka, numbered(name, 0, 1, start=2))
    until(lambda: seen == ["0:1", "0:2"], lambda: seen.extend(values(reader.consume(10, 0.1))))


def test_aborted_records_are_never_seen_and_the_marker_at_the_end_does_not_hold_the_reader(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 1))
    with open_transaction(settings.kafka, name, numbered(name, 0, 2, start=1)) as producer:
        producer.abort_transaction(PATIENCE)
    assert visible(settings.kafka, name) == ["0:0"]
    with open_transaction(settings.kafka, name, numbered(name, 0, 1, start=3)) as producer:
        producer.commit_transaction(PATIENCE)
    assert visible(settings.kafka, name) == ["0:0", "0:3"]


def test_records_behind_an_open_transaction_are_not_seen_while_it_is_open(
    settings: Settings, make_topic: MakeTopic, name: str, reader: LogReader
) -> None:
    make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 1))
    with open_transaction(settings.kafka, name, numbered(name, 0, 1, start=1)) as producer:
        write(settings.kafka, numbered(name, 0, 1, start=2))
        reader.assign({(name, 0): BEGINNING})
        seen: list[str] = []
        until(lambda: bool(seen), lambda: seen.extend(values(reader.consume(10, 0.1))))
        for _ in range(5):
            seen += values(reader.consume(10, 0.1))
        assert seen == ["0:0"]
        producer.commit_transaction(PATIENCE)
        until(lambda: len(seen) == 3, lambda: seen.extend(values(reader.consume(10, 0.1))))
    assert seen == ["0:0", "0:1", "0:2"]


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "aborted"])
def test_reading_to_the_end_waits_for_an_open_transaction_until_it_is_settled(
    settings: Settings, make_topic: MakeTopic, name: str, reader: LogReader, *, commit: bool
) -> None:
    make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 1))
    with (
        open_transaction(settings.kafka, name, numbered(name, 0, 1, start=1)) as producer,
        ThreadPoolExecutor(1) as pool,
    ):
        assert reader.bounds((name, 0)) == (0, 2)
        with pytest.raises(KafkaUnavailable, match="nothing came from"):
            list(reader.read_to_end({(name, 0): BEGINNING}, 0.3))
        reading = pool.submit(lambda: values(reader.read_to_end({(name, 0): BEGINNING}, PATIENCE)))
        (producer.commit_transaction if commit else producer.abort_transaction)(PATIENCE)
        assert reading.result(PATIENCE) == (["0:0", "0:1"] if commit else ["0:0"])


def test_a_transaction_of_our_own_is_seen_whole_once_committed(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=2)
    producer = TransactionalProducer(settings.kafka, name, timeout=PATIENCE)
    assert producer.commit([*numbered(name, 0, 2), *numbered(name, 1, 1)]) == [0, 1, 0]
    assert producer.commit(numbered(name, 0, 1, start=2)) == [3], "the marker takes an offset"
    assert visible(settings.kafka, name) == ["0:0", "0:1", "0:2", "1:0"]


def test_records_that_retention_took_are_an_error_for_who_wants_them_and_skipped_by_who_reads_to_the_end(
    settings: Settings, make_topic: MakeTopic, name: str, reader: LogReader
) -> None:
    make_topic(partitions=1)
    write(settings.kafka, numbered(name, 0, 5))
    delete_before(settings, name, 0, 3)
    assert reader.bounds((name, 0)) == (3, 5)
    assert values(reader.read_to_end({(name, 0): 1}, PATIENCE)) == ["0:3", "0:4"]
    reader.assign({(name, 0): 1})
    with pytest.raises(OffsetsExpired, match=rf"{name}\[0\]"):
        until(lambda: False, lambda: reader.consume(10, 0.1))


def test_a_topic_that_is_missing_is_named_with_what_to_do(name: str, reader: LogReader) -> None:
    with pytest.raises(KafkaUnavailable, match=rf"{name}: .*Has `sop deploy` run\?"):
        reader.partitions(name)


def test_a_broker_that_is_down_is_unavailable(settings: Settings) -> None:
    down = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "request_timeout": 0.3})
    reader = LogReader(down, "test-reader")
    with pytest.raises(KafkaUnavailable):
        reader.partitions("any")
    with pytest.raises(KafkaUnavailable):
        reader.bounds(("any", 0))
