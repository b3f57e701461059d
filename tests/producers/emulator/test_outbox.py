"""Robots that share a wire: what each has on its way, what is refused, and what a full queue does."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from infra.clock import ManualClock
from infra.kafka import OutRecord
from producers.emulator.outbox import Wire, WireOutbox
from producers.errors import SpoolFull
from producers.outbox import Item, item
from schemas.codec import AvroSchema, unframe
from schemas.events import Heartbeat
from schemas.topics import ROBOT_STATUS


class Registry:
    """Every schema is 7."""

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        return 7


class Producer:
    """Takes `room` records; reports when it is polled, all alike."""

    def __init__(self, room: int = 100) -> None:
        self.room = room
        self.error: str | None = None
        self.taken: list[OutRecord] = []
        self.waiting: deque[Callable[[str | None, int], None]] = deque()

    def send(
        self,
        record: OutRecord,
        on_delivery: Callable[[str | None, int], None] | None = None,
        on_appended: Callable[[float], None] | None = None,
    ) -> bool:
        if len(self.waiting) >= self.room:
            return False
        self.taken.append(record)
        assert on_delivery is not None
        self.waiting.append(on_delivery)
        return True

    def poll(self, timeout: float = 0.0) -> None:
        while self.waiting:
            self.waiting.popleft()(self.error, 0)

    def flush(self, timeout: float) -> int:
        self.poll()
        return 0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def entry(clock: ManualClock, robot_id: str = "a") -> Item:
    event = Heartbeat(
        robot_id=robot_id,
        boot_epoch=1,
        reported_at=clock.now(),
        spool_depth=0,
        spool_age_seconds=0.0,
        policy="",
        policy_version=0,
        episodes_ended=0,
    )
    return item(ROBOT_STATUS, robot_id, event, b"00-1", clock.unix())


def test_each_robot_knows_what_of_its_own_is_on_its_way_and_for_how_long(clock: ManualClock) -> None:
    producer = Producer()
    wire = Wire(producer, Registry(), clock, lambda: False)
    first, second = WireOutbox(wire), WireOutbox(wire)
    first.append(entry(clock))
    clock.advance(2.0)
    first.append(entry(clock))
    second.append(entry(clock, "b"))
    assert (first.depth(), second.depth(), wire.unacknowledged) == (2, 1, 3)
    assert (first.age_seconds(), second.age_seconds()) == (2.0, 0.0)
    assert [record.key for record in producer.taken] == [b"a", b"a", b"b"]
    assert unframe(producer.taken[0].value) == (7, entry(ManualClock()).body)
    wire.poll()
    assert (first.depth(), second.depth(), wire.unacknowledged) == (0, 0, 0)
    assert first.age_seconds() == 0.0


def test_what_kafka_refuses_is_counted_and_told(clock: ManualClock) -> None:
    producer = Producer()
    wire = Wire(producer, Registry(), clock, lambda: False)
    outbox = WireOutbox(wire)
    producer.error = "not authorized"
    outbox.append(entry(clock))
    wire.flush(0)
    assert (wire.unacknowledged, wire.refused) == (0, 1)
    assert outbox.errors() == ("Kafka refused an event: not authorized",)


def test_a_full_queue_is_waited_for_until_the_fleet_is_to_end(clock: ManualClock) -> None:
    producer = Producer(room=1)
    ending: list[bool] = []
    wire = Wire(producer, Registry(), clock, lambda: bool(ending))
    outbox = WireOutbox(wire)
    for _ in range(3):
        outbox.append(entry(clock))
    assert len(producer.taken) == 3, "none was left out"
    producer.room = 0
    ending.append(True)
    with pytest.raises(SpoolFull, match="was not sent"):
        outbox.append(entry(clock))
    assert (outbox.depth(), wire.unacknowledged) == (1, 1)
