"""Delivery reports tell the truth, and a key means one partition for every client."""

from __future__ import annotations

from infra.kafka import EventProducer, LogReader, OutRecord
from infra.kafka.partitioner import murmur2, partition_of
from infra.settings import Settings
from tests.infra.conftest import MakeTopic
from tests.infra.kafka.helpers import PATIENCE, numbered, visible, write


def test_records_arrive_in_order_with_key_headers_and_their_offsets_reported(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    record = OutRecord(name, b"arm-07", b"v", (("traceparent", b"00-1"), ("empty", b"")))
    assert write(settings.kafka, [record, *numbered(name, 0, 50), OutRecord(name, None, None)]) == list(range(52))
    assert visible(settings.kafka, name) == ["v", *(f"0:{n}" for n in range(50)), ""]
    reader = LogReader(settings.kafka, "reader")
    first, *_, last = reader.read_to_end({(name, 0): 0}, PATIENCE)
    reader.close()
    assert (first.key(), first.headers()) == (b"arm-07", [("traceparent", b"00-1"), ("empty", b"")])
    assert (last.key(), last.value()) == (None, None)


def test_a_key_goes_where_the_java_client_would_send_it(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=4)
    keys = [f"arm-{number:02d}".encode() for number in range(24)]
    write(settings.kafka, [OutRecord(name, key, key) for key in keys])
    reader = LogReader(settings.kafka, "reader")
    messages = list(reader.read_to_end(dict.fromkeys(reader.partitions(name), 0), PATIENCE))
    reader.close()
    found = {bytes(message.key() or b""): message.partition() for message in messages}
    assert found == {key: partition_of(key, 4) for key in keys}
    assert set(found.values()) == {0, 1, 2, 3}


def test_a_record_that_is_too_large_is_reported_and_the_next_one_is_stored(
    settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    make_topic(partitions=1)
    reports: list[tuple[str | None, int]] = []
    producer = EventProducer(settings.kafka, "test")
    for value in (bytes(3_000_000), b"small"):
        assert producer.send(OutRecord(name, b"k", value), lambda error, offset: reports.append((error, offset)))
    assert producer.flush(PATIENCE) == 0
    (error, nowhere), stored = reports
    assert "too large" in str(error)
    assert (nowhere, stored) == (-1, (None, 0))


def test_what_is_discarded_is_reported_and_never_leaves(settings: Settings) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    reports: list[str | None] = []
    producer = EventProducer(nowhere, "test", delivery_timeout=None)
    assert producer.send(OutRecord("any", b"k", b"v"), lambda error, _: reports.append(error))
    producer.discard()
    assert producer.flush(PATIENCE) == 0
    assert reports
    assert None not in reports


def test_what_was_not_delivered_in_time_is_reported_as_such(settings: Settings) -> None:
    reports: list[str | None] = []
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    producer = EventProducer(nowhere, "test", delivery_timeout=0.2)
    assert producer.send(OutRecord("any", b"k", b"v"), lambda error, _: reports.append(error))
    assert len(producer) >= 1
    assert producer.flush(PATIENCE) == 0
    assert len(reports) == 1
    assert reports[0]


def test_a_full_queue_is_said_so_and_nothing_is_dropped(settings: Settings) -> None:
    nowhere = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    producer = EventProducer(nowhere, "test", delivery_timeout=1.0)
    reports: list[str | None] = []
    record = OutRecord("any", b"k", b"")
    answers = [producer.send(record, lambda error, _: reports.append(error)) for _ in range(110_000)]
    taken = answers.count(True)
    assert answers == [True] * taken + [False] * (len(answers) - taken)
    assert 90_000 <= taken < 110_000
    assert producer.flush(PATIENCE) == 0
    assert len(reports) == taken
    assert None not in reports


def test_the_hash_is_the_java_clients() -> None:
    # org.apache.kafka.common.utils.UtilsTest.testMurmur2
    signed = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for data, expected in signed.items():
        assert murmur2(data) == expected % 2**32
