from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from infra.clock import SystemClock
from infra.kafka import OutRecord
from producers.errors import SpoolFull, Undelivered
from producers.outbox import Item, KafkaOutbox
from schemas.codec import AvroSchema, latest, unframe
from schemas.topics import ROBOT_STEPS

Report = Callable[[str | None, int], None]


class Ids:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        self.asked.append((topic, schema.record))
        return 7


class ScriptedSender:
    """Keeps what it is sent; `deliver` makes each record's report: True, an error, or False for none yet."""

    def __init__(self, deliver: Callable[[OutRecord, int], str | bool], room: int = 1000) -> None:
        self.flushed_within = 0.0
        self.sent: list[OutRecord] = []
        self.room = room
        self._deliver = deliver
        self._waiting: list[tuple[OutRecord, Report, int]] = []
        self._lock = threading.Lock()

    def send(self, record: OutRecord, on_delivery: Report | None = None) -> bool:
        with self._lock:
            if len(self._waiting) >= self.room:
                return False
            self.sent.append(record)
            if on_delivery is not None:
                self._waiting.append((record, on_delivery, self.sent.count(record)))
            return True

    def poll(self, timeout: float = 0.0) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for record, report, attempt in waiting:
            outcome = self._deliver(record, attempt)
            if outcome is False:
                with self._lock:
                    self._waiting.append((record, report, attempt))
            else:
                report(None if outcome is True else str(outcome), 0)
        if not waiting:
            threading.Event().wait(min(timeout, 0.005))

    def flush(self, timeout: float) -> int:
        self.flushed_within = timeout
        return 0


def entry(body: bytes = b"body") -> Item:
    return Item(ROBOT_STEPS, b"robot-1", body, latest("step"), b"00-trace-01")


def outbox(sender: ScriptedSender, capacity: int = 100) -> KafkaOutbox:
    return KafkaOutbox(sender, Ids(), SystemClock(), capacity)


def test_a_record_is_framed_with_its_schema_s_id_and_carries_its_trace() -> None:
    sender = ScriptedSender(lambda _record, _attempt: True)
    box = outbox(sender)
    box.append(entry())
    box.close(10)
    (record,) = sender.sent
    assert unframe(record.value) == (7, b"body")
    assert (record.topic, record.key, list(record.headers)) == (
        ROBOT_STEPS,
        b"robot-1",
        [("traceparent", b"00-trace-01")],
    )


def test_closing_returns_once_everything_is_acknowledged() -> None:
    box = outbox(ScriptedSender(lambda _record, _attempt: True))
    for number in range(50):
        box.append(entry(b"%d" % number))
    box.close(10)
    assert box.depth() == 0
    assert box.age_seconds() == 0.0


def test_closing_says_how_much_was_not_acknowledged_in_time() -> None:
    box = outbox(ScriptedSender(lambda _record, _attempt: False))
    box.append(entry())
    with pytest.raises(Undelivered, match="1 events were not acknowledged"):
        box.close(0.05)


def test_a_failed_delivery_is_tried_again_until_it_succeeds() -> None:
    sender = ScriptedSender(lambda _record, attempt: True if attempt == 3 else "timed out")
    box = outbox(sender)
    box.append(entry())
    box.close(10)
    assert len(sender.sent) == 3


def test_a_delivery_that_fails_every_time_stops_the_recording_and_says_why() -> None:
    sender = ScriptedSender(lambda _record, _attempt: "not authorized")
    box = outbox(sender)
    box.append(entry())
    with pytest.raises(Undelivered, match="not authorized"):
        box.close(10)
    assert "could not be delivered: not authorized" in box.errors()[0]
    with pytest.raises(Undelivered, match="nothing more is recorded"):
        box.append(entry())


def test_at_the_capacity_steps_are_refused_and_ends_are_taken() -> None:
    box = outbox(ScriptedSender(lambda _record, _attempt: False), capacity=2)
    box.append(entry())
    box.append(entry())
    with pytest.raises(SpoolFull, match="2 events wait for Kafka"):
        box.append(entry())
    with pytest.raises(SpoolFull, match="no room for 1 events"):
        box.reserve(1)
    box.append(entry(), closing=True)
    assert box.depth() == 3


def test_a_full_queue_below_refuses_too_and_counts_nothing() -> None:
    box = outbox(ScriptedSender(lambda _record, _attempt: False, room=1))
    box.append(entry())
    with pytest.raises(SpoolFull):
        box.append(entry(), closing=True)
    assert box.depth() == 1
