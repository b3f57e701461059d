"""Between recording and the network: what an event is on its way to Kafka, and who takes it there.

An item is an Avro body and the schema that it was written with, not yet framed with the registry's id, so taking
one needs no server.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from producers.clock_offset import ClockOffset
from producers.tail import Tail
from schemas.codec import AvroSchema, encode, latest
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

RECORD_OVERHEAD = 1024
"""Bytes that a record has beside its event's body, at most: schema id, key, trace, and a batch's header."""

MOST_BYTES = {topic: TOPICS[topic].max_record_bytes - RECORD_OVERHEAD for topic in PRODUCED_TOPICS}
"""Largest body of an event, by topic: brokers take nothing beyond, and what waits behind it waits for ever."""


class Item(NamedTuple):
    """An encoded event on its way to `topic`, recorded at `taken_at` (unix seconds). A step has no `event`."""

    topic: str
    key: bytes
    body: bytes
    schema: AvroSchema
    traceparent: bytes
    taken_at: float
    event: Event | None


def item(topic: str, robot_id: str, event: Event, traceparent: bytes, taken_at: float) -> Item:
    """Encode an event for its topic, keyed by its robot."""
    return Item(topic, robot_id.encode(), encode(event), latest(event.record), traceparent, taken_at, event)


class Outbox(Protocol):
    """Takes events and sees to it that they arrive. No method waits for the network, except `close`."""

    def reserve(self, steps: int, step_bytes: int, frame_bytes: int = 0) -> int:
        """Keep room for so many steps with bodies of so many bytes, and refuse now what would not fit later.

        Their frames take about `frame_bytes` more, for which there must be room now; nothing is kept for them.

        Returns:
            Bytes that frames may take until the spool is full.

        Raises:
            SpoolFull: there is no room.
        """

    def append(self, entry: Item) -> object:
        """Take responsibility for an event. Steps may be refused beyond the reserve, others only by the disk.

        After any other exception than these two (a signal's handler may raise at any instruction) nobody knows
        whether the event was taken: `settle` comes before the next one.

        Raises:
            SpoolFull: the event was not taken.
            SpoolUnusable: the event was not taken, and none will be before somebody acts.
        """

    def settle(self) -> Tail | None:
        """What of this boot was taken, counted anew; None where that cannot be known.

        Raises:
            SpoolUnusable: not now, and nothing may be appended before.
        """

    def offer(self, entry: Item) -> None:
        """Send an event that a newer one will replace; it may be lost."""

    def depth(self) -> int:
        """Events taken and not yet acknowledged by Kafka."""

    def age_seconds(self) -> float:
        """Age of the oldest of them, in seconds; 0 when there is none."""

    def used_bytes(self) -> int:
        """Disk that is taken."""

    def clock_offset(self) -> ClockOffset | None:
        """The broker's clock against the robot's; None before anything was acknowledged."""

    def errors(self) -> tuple[str, ...]:
        """What is wrong with recording or delivery now, in words."""

    def drain(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until everything is acknowledged."""

    def close(self, timeout: float) -> None:
        """As `drain`, then let go.

        Raises:
            Undelivered: something is not; it is kept, and the text says how much.
        """
