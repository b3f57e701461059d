"""Between recording and the network: events go in at once, and out to Kafka in the background.

The queue lives in memory: what was not delivered when the process dies is lost. An item is an Avro body and the
schema that it was written with, not yet framed with the registry's id, so taking one needs no server.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from infra.clock import Clock
from infra.kafka import OutRecord
from producers.errors import SpoolFull, Undelivered
from schemas.codec import AvroSchema, encode, frame, latest
from schemas.events import Event
from schemas.topics import (
    POLICY_ACTIVATIONS,
    ROBOT_EPISODES,
    ROBOT_INTERVENTIONS,
    ROBOT_STATUS,
    ROBOT_STEPS,
    TOPICS,
)

PRODUCED_TOPICS = (ROBOT_STEPS, ROBOT_INTERVENTIONS, ROBOT_EPISODES, ROBOT_STATUS, POLICY_ACTIVATIONS)

# librdkafka's own queue holds 100,000; the rest is for the ends of what was begun, and for resends.
_CAPACITY = 90_000
# Each attempt lasts up to the producer's delivery timeout (two minutes).
_ATTEMPTS = 5

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """An encoded event on its way to `topic`."""

    topic: str
    key: bytes
    body: bytes
    schema: AvroSchema
    traceparent: bytes


def item(topic: str, robot_id: str, event: Event, traceparent: bytes) -> Item:
    """Encode an event for its topic, keyed by its robot."""
    return Item(topic, robot_id.encode(), encode(event), latest(event.record), traceparent)


class Outbox(Protocol):
    """Takes events and sees to it that they arrive. No method waits for the network, except `close`."""

    def reserve(self, count: int) -> None:
        """Refuse now what would not fit later.

        Raises:
            SpoolFull: there is no room for `count` more events.
        """

    def append(self, entry: Item, *, closing: bool = False) -> None:
        """Take responsibility for an event; `closing` ones may use the room kept for ends.

        Raises:
            SpoolFull: the event was not taken.
            Undelivered: an event that was taken before could not be delivered.
        """

    def offer(self, entry: Item) -> None:
        """Send an event that a newer one will replace; it may be lost."""

    def depth(self) -> int:
        """Events taken and not yet acknowledged by Kafka."""

    def age_seconds(self) -> float:
        """Age of the oldest of them, in seconds; 0 when there is none."""

    def errors(self) -> tuple[str, ...]:
        """What is wrong with delivery now, in words."""

    def close(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until everything is acknowledged, then let go.

        Raises:
            Undelivered: something is not; the text says how much.
        """


class Sender(Protocol):
    """What an outbox needs of `infra.kafka.EventProducer`."""

    def send(self, record: OutRecord, on_delivery: Callable[[str | None, int], None] | None = None) -> bool:
        """Queue a record, or say that the queue is full."""

    def poll(self, timeout: float = 0.0) -> None:
        """Serve delivery reports."""

    def flush(self, timeout: float) -> int:
        """Wait for what is queued."""


class SchemaIds(Protocol):
    """What an outbox needs of `infra.registry.Registry`."""

    def id_of(self, topic: str, schema: AvroSchema) -> int:
        """Id of a registered schema."""


class KafkaOutbox:
    """An outbox in memory, on librdkafka's queue. Implements `Outbox`; threads may share it.

    Raises:
        RegistryUnavailable: the registry does not answer.
        UnknownSchema: `sop deploy` has not registered what this version writes.
    """

    def __init__(self, producer: Sender, registry: SchemaIds, clock: Clock, capacity: int = _CAPACITY) -> None:
        self._producer = producer
        self._clock = clock
        self._capacity = capacity
        # Looked up now, so that no step ever waits for the registry.
        self._ids = {name: registry.id_of(name, latest(str(TOPICS[name].event))) for name in PRODUCED_TOPICS}
        self._taken_at: deque[float] = deque()
        self._failed: deque[tuple[OutRecord, int]] = deque()
        self._abandoned = 0
        self._last_error = ""
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="outbox", daemon=True)
        self._poller.start()

    def reserve(self, count: int) -> None:
        """Refuse now what would not fit later; see `Outbox`."""
        self._raise_abandoned()
        if self.depth() + count > self._capacity:
            raise SpoolFull(
                f"no room for {count} events: {self.depth()} of {self._capacity} still wait for Kafka. Wait until "
                f"the network has taken some (see the heartbeat's spool_depth)."
            )

    def append(self, entry: Item, *, closing: bool = False) -> None:
        """Queue an event; see `Outbox`."""
        self._raise_abandoned()
        full = len(self._taken_at) >= self._capacity and not closing
        if not full:
            self._taken_at.append(self._clock.monotonic())  # before its report can come
            if self._send(self._record(entry), attempt=1):
                return
            self._taken_at.pop()
        raise SpoolFull(
            f"{self.depth()} events wait for Kafka, there is no room for one more; this one was not recorded"
        )

    def offer(self, entry: Item) -> None:
        """Send without looking back; see `Outbox`."""
        self._producer.send(self._record(entry))

    def depth(self) -> int:
        """Events taken and not yet acknowledged."""
        return len(self._taken_at)

    def age_seconds(self) -> float:
        """Age of the oldest of them. Acknowledgements are taken to come in order."""
        try:
            return self._clock.monotonic() - self._taken_at[0]
        except IndexError:
            return 0.0

    def errors(self) -> tuple[str, ...]:
        """The last delivery error while anything it concerns is still outstanding."""
        if self._abandoned:
            return (f"{self._abandoned} events could not be delivered: {self._last_error}",)
        return (f"delivery is being retried: {self._last_error}",) if self._failed else ()

    def close(self, timeout: float) -> None:
        """Flush and let go; see `Outbox`."""
        until = self._clock.monotonic() + timeout
        while self.depth() and not self._abandoned and self._clock.monotonic() < until:
            self._closed.wait(0.01)
        self._closed.set()
        self._poller.join()
        self._producer.flush(1.0)  # heartbeats
        if self.depth():
            why = f" ({self._last_error})" if self._last_error else ""
            raise Undelivered(
                f"{self.depth()} events were not acknowledged by Kafka within {timeout:.0f} s{why}; they are lost "
                f"unless the broker stored them without saying so"
            )

    def _record(self, entry: Item) -> OutRecord:
        value = frame(self._ids[entry.topic], entry.body)
        return OutRecord(entry.topic, entry.key, value, (("traceparent", entry.traceparent),))

    def _send(self, record: OutRecord, attempt: int) -> bool:
        return self._producer.send(record, lambda error, _offset: self._delivered(record, attempt, error))

    def _delivered(self, record: OutRecord, attempt: int, error: str | None) -> None:
        if error is None:
            self._taken_at.popleft()
            return
        self._last_error = error
        if attempt < _ATTEMPTS:
            _log.warning("delivery_failed", topic=record.topic, error=error, attempt=attempt)
            self._failed.append((record, attempt))
        else:
            _log.error("delivery_abandoned", topic=record.topic, error=error, attempts=attempt)
            self._abandoned += 1

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.05)
            # A resend may double what the broker has stored after all; readers drop it by its sequence.
            while self._failed:
                record, attempt = self._failed[0]
                if not self._send(record, attempt + 1):
                    break
                self._failed.popleft()

    def _raise_abandoned(self) -> None:
        if self._abandoned:
            raise Undelivered(
                f"{self._abandoned} events could not be delivered ({self._last_error}); nothing more is recorded. "
                f"Mend the cause and start the robot's client anew."
            )
