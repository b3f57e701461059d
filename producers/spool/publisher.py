"""From the spool to Kafka: frames, sends in order, and lets go of what is acknowledged.

One turn after another, without a thread of its own; where it runs is `process.py`'s business. It never gives an
event up: what Kafka refuses is tried again, from the first that is not acknowledged, until the cause is mended.
Only an event that is larger than its topic takes is put into a file of its own, and what waits behind it goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from infra.clock import Clock
from infra.kafka import MESSAGE_BYTES, TOO_LARGE, OutRecord
from producers.clock_offset import ClockOffset, OffsetEstimate
from producers.outbox import MOST_BYTES, RECORD_OVERHEAD
from producers.sender import Sender
from producers.spool.in_flight import InFlight
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.pace import Pace
from producers.spool.reading import SpoolReading
from producers.spool.segment import Kind, Row
from schemas.codec import frame

# On their way at once: what bounds memory, however long the brokers are away.
IN_FLIGHT_EVENTS = 5_000
IN_FLIGHT_BYTES = 16 * 2**20
_BATCH = 500
# Every so many events one tells the clock's offset.
_SAMPLED = 50
# Heartbeats on their way at once; more of them, hours later, would tell nobody anything.
_OFFERED = 10
# Seconds before what Kafka refused is tried again.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
# Longest wait for a report, so that what was recorded meanwhile follows soon.
_TICK = 0.02

_log = structlog.get_logger(__name__)


class Connection(Sender, Protocol):
    """What the publisher needs of `infra.kafka.EventProducer`."""

    @property
    def trouble(self) -> str | None:
        """What the client said last that is wrong with the brokers."""

    def discard(self) -> None:
        """Give up what is queued."""


class Frames(Protocol):
    """What the publisher needs of `producers.frames.uploads.FrameUploads`."""

    def ready(self, row: Row) -> bool:
        """Whether what an event refers to is stored."""

    def acknowledged(self, position: int) -> None:
        """Kafka has everything up to a position."""

    def error(self) -> str | None:
        """Why frames are not stored, in words."""


class SchemaIds(Protocol):
    """Ids of schemas in the registry, learned beside the publisher."""

    def find(self, kind: Kind) -> int | None:
        """Id of a schema on its topic; None while it is not known yet."""

    def error(self) -> str | None:
        """Why it is not, in words."""


@dataclass(frozen=True, slots=True)
class Status:
    """How the publisher is doing; `oldest_at` in unix seconds of the robot's clock."""

    acknowledged: int
    oldest_at: float | None = None
    errors: tuple[str, ...] = ()
    clock_offset: ClockOffset | None = None
    clone: str | None = None
    """That another client has this robot's name, in words; the publisher's process adds it."""


class Publisher:
    """Takes a spool to Kafka."""

    def __init__(
        self,
        reading: SpoolReading,
        connect: Callable[[], Connection],
        ids: SchemaIds,
        clock: Clock,
        *,
        sync_interval: float,
        drain_rate: float,
        frames: Frames,
    ) -> None:
        self._reading = reading
        self._connect = connect
        self._ids = ids
        self._clock = clock
        self._frames = frames
        self._sync_interval = sync_interval
        self._pace = Pace(drain_rate, clock.monotonic())
        self._sender = connect()
        self._generation = 0
        self._offered = 0
        self._offer: OutRecord | None = None
        self._offer_at = 0.0
        self._in_flight = InFlight(reading.acknowledged)
        self._unsent: list[Row] = []
        self._refused: str | None = None
        self._too_large: set[int] = set()
        self._stuck: str | None = None
        self._resume_at = 0.0
        self._pause = _FIRST_PAUSE
        self._next_sync = 0.0
        self._offset = OffsetEstimate()
        self._sent = 0

    def status(self, trouble: str = "") -> Status:
        """As of now; `trouble` is what keeps the spool from being read."""
        oldest = self._in_flight.oldest()
        if oldest is None and self._unsent:
            oldest = self._unsent[-1].taken_at
        error = f"Kafka refuses events, they are tried again: {self._refused}" if self._refused else None
        away = f"Kafka: {self._sender.trouble}" if self._sender.trouble else None
        others = (self._stuck, self._ids.error(), self._frames.error())
        wrong = tuple(filter(None, (trouble, error or away, *others)))
        return Status(self._in_flight.acknowledged, oldest, wrong, self._offset.best())

    def turn(self) -> None:
        """One round: to the disk, on to Kafka, reports, and what may go. Waits at most some 20 ms for the network.

        Raises:
            OSError: the spool cannot be read now; the next turn tries again.
        """
        now = self._clock.monotonic()
        if now >= self._next_sync:
            self._next_sync = now + self._sync_interval
            self._reading.sync()
        self._sender.poll()  # nothing may leave after an event whose refusal is already known
        if self._refused is not None and now >= self._resume_at:
            self._start_again()
        if self._refused is None:
            self._send_offer()
            self._send_some(now)
        idle = not self._in_flight and not self._unsent and not self._reading.waiting
        self._sender.poll(max(0.0, min(self._next_sync - now, self._sync_interval if idle else _TICK)))
        self._reading.acknowledge(self._in_flight.acknowledged)
        self._frames.acknowledged(self._in_flight.acknowledged)
        if idle:
            self._reading.remember()

    def offer(self, record: OutRecord) -> None:
        """Send a record, not framed yet, unless a newer one is offered before it can be sent; it may be lost."""
        self._offer = record

    def close(self, timeout: float) -> None:
        """Wait at most so many seconds for what is on its way, and let go of the spool."""
        until = self._clock.monotonic() + timeout
        while self._offer is not None and self._clock.monotonic() < until:
            self._sender.poll(_TICK)
            self._send_offer()
        self._sender.flush(max(0.0, until - self._clock.monotonic()))
        self._reading.acknowledge(self._in_flight.acknowledged)
        self._frames.acknowledged(self._in_flight.acknowledged)
        self._reading.close()

    def _send_offer(self) -> None:
        record = self._offer
        if record is None or record.value is None or self._offered >= _OFFERED:
            return
        if self._clock.monotonic() < self._offer_at:
            return
        schema_id = self._ids.find(NEWEST_KINDS[record.topic])
        if schema_id is None:
            return
        generation = self._generation

        def delivered(error: str | None, _offset: int) -> None:
            if generation != self._generation:
                return
            self._offered -= 1
            if error is not None:
                # Such as a topic that it may not write to; the log would be full of it.
                self._offer_at = self._clock.monotonic() + _LONGEST_PAUSE

        value = frame(schema_id, record.value)
        if self._sender.send(OutRecord(record.topic, record.key, value, record.headers), delivered):
            self._offered += 1
            self._offer = None

    def _send_some(self, now: float) -> None:
        allowed = self._pace.allowed(now)
        while allowed > 0 and self._has_room():
            if not self._unsent:
                self._unsent = self._reading.read(min(_BATCH, allowed))
                self._unsent.reverse()  # taken from the end
                if not self._unsent:
                    return
            row = self._unsent[-1]
            if not self._frames.ready(row):
                return
            if row.position in self._too_large or len(row.body) > MESSAGE_BYTES - RECORD_OVERHEAD:
                if not self._set_aside(row):
                    return
                self._unsent.pop()
                continue
            schema_id = self._ids.find(row.kind)
            if schema_id is None or not self._send(row, schema_id, sampled=self._sent % _SAMPLED == 0):
                return
            self._sent += 1
            if self._refused is None:
                self._unsent.pop()
            else:
                return
            self._pace.used(1)
            allowed -= 1

    def _set_aside(self, row: Row) -> bool:
        """Into a file, where nobody has to wait for it; False when the disk does not take it now."""
        try:
            path = self._reading.set_aside(row)
        except OSError as error:
            self._stuck = f"an event of {len(row.body)} bytes is too large for Kafka, and for the disk: {error}"
            return False
        self._stuck = None
        self._in_flight.sent(row.position, row.taken_at, 0)
        self._in_flight.delivered(row.position)
        _log.error("event_too_large", topic=row.kind.topic, bytes=len(row.body), path=str(path))
        return True

    def _has_room(self) -> bool:
        return len(self._in_flight) < IN_FLIGHT_EVENTS and self._in_flight.bytes < IN_FLIGHT_BYTES

    def _send(self, row: Row, schema_id: int, *, sampled: bool) -> bool:
        # Whatever the reports hold on to stays in memory until they come: no body may be among it.
        generation, position, topic = self._generation, row.position, row.kind.topic
        beyond = len(row.body) > MOST_BYTES[topic]
        before, sent_at = self._clock.monotonic(), self._clock.now().timestamp()

        def delivered(error: str | None, _offset: int) -> None:
            if generation != self._generation:
                return  # was sent anew since
            if error is None:
                self._in_flight.delivered(position)
                self._pause = _FIRST_PAUSE
            elif self._refused is None:
                self._refused = error
                self._resume_at = self._clock.monotonic()
                if beyond and error == TOO_LARGE:
                    self._too_large.add(position)
                else:
                    self._resume_at += self._pause
                    self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                _log.warning("delivery_refused", topic=topic, error=error)

        def appended(appended_at: float) -> None:
            now = self._clock.monotonic()
            self._offset.sample(sent_at=sent_at, latency=now - before, appended_at=appended_at, now=now)

        self._in_flight.sent(position, row.taken_at, len(row.body))
        record = OutRecord(
            row.kind.topic, row.key, frame(schema_id, row.body), (("traceparent", row.traceparent),)
        )
        if self._sender.send(record, delivered, appended if sampled else None):
            return True
        self._in_flight.unsent(position)
        return False

    def _start_again(self) -> None:
        """A new producer, and everything from the first event that is not acknowledged: order is kept."""
        self._generation += 1
        self._offered = 0
        self._sender.discard()
        self._sender = self._connect()
        self._in_flight = InFlight(self._in_flight.acknowledged)
        self._too_large = {position for position in self._too_large if position > self._in_flight.acknowledged}
        self._reading.acknowledge(self._in_flight.acknowledged)
        self._reading.rewind()
        self._unsent = []
        self._refused = None
