"""From a robot's client straight to Kafka: many robots share one connection, and none has a spool.

What is not emulated is the robot's disk, and its publisher's process: a thousand of them fit no machine.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable

from infra.clock import Clock
from infra.kafka import OutRecord
from producers.clock_offset import ClockOffset, OffsetEstimate
from producers.errors import SpoolFull
from producers.outbox import Item
from producers.sender import Sender
from producers.spool.kinds import NEWEST_KINDS
from producers.spool.recovery import writer_schema
from producers.spool.schema_ids import IdLookup
from schemas.codec import frame

# Every so many records one tells the clock's offset.
_SAMPLED = 1_000


class Wire:
    """The connection of one process, and what it lost.

    Attributes:
        unacknowledged: events on their way.
        refused: events that Kafka did not take.

    Raises:
        InfraError, SchemaError: the registry is away, or does not know what we write.
    """

    def __init__(self, producer: Sender, registry: IdLookup, clock: Clock, ending: Callable[[], bool]) -> None:
        """`ending` says whether the fleet is to end: a full queue is waited for no longer then."""
        self.clock = clock
        self.unacknowledged = 0
        self.refused = 0
        self.error: str | None = None
        self._producer = producer
        self._ids = {t: registry.id_of(t, writer_schema(kind)) for t, kind in NEWEST_KINDS.items()}
        self._sent = 0
        self._offset = OffsetEstimate()
        self._ending = ending

    def send(self, entry: Item, done: Callable[[], None]) -> None:
        """Send an event; waits while the queue is full, which makes the fleet late, as it should.

        Raises:
            SpoolFull: the queue is full, and the fleet is told to end.
        """
        self._sent += 1
        sampled = self._sent % _SAMPLED == 0

        def delivered(error: str | None, _offset: int) -> None:
            self.unacknowledged -= 1
            if error is not None:
                self.refused += 1
                self.error = error
            done()

        record = OutRecord(
            entry.topic,
            entry.key,
            frame(self._ids[entry.topic], entry.body),
            (("traceparent", entry.traceparent),),
        )
        self.unacknowledged += 1
        while not self._producer.send(record, delivered, self._appended() if sampled else None):
            if self._ending():
                self.unacknowledged -= 1
                raise SpoolFull("Kafka takes no more, and the fleet is to end; the event was not sent")
            self._producer.poll(0.1)

    def poll(self) -> None:
        """Serve delivery reports."""
        self._producer.poll(0)

    def flush(self, timeout: float) -> None:
        """Wait for what is on its way, at most so many seconds."""
        self._producer.flush(timeout)

    def offset(self) -> ClockOffset | None:
        """The broker's clock against ours."""
        return self._offset.best()

    def _appended(self) -> Callable[[float], None]:
        before, sent_at = self.clock.monotonic(), self.clock.now().timestamp()

        def sample(appended_at: float) -> None:
            now = self.clock.monotonic()
            self._offset.sample(sent_at=sent_at, latency=now - before, appended_at=appended_at, now=now)

        return sample


class WireOutbox:
    """One robot's outbox on it. Implements `producers.outbox.Outbox`; the wire is flushed by its owner."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._taken_at: deque[float] = deque()

    def reserve(self, steps: int, step_bytes: int, frame_bytes: int = 0) -> int:  # noqa: ARG002
        """There is no disk, and no room for frames."""
        return 0

    def append(self, entry: Item) -> None:
        """Send it; see `Wire.send`."""
        self._taken_at.append(entry.taken_at)
        try:
            self._wire.send(entry, self._done)
        except SpoolFull:
            self._taken_at.pop()
            raise

    def settle(self) -> None:
        """Nothing is kept that would tell."""

    def offer(self, entry: Item) -> None:
        """Send it, unless the fleet is to end."""
        with contextlib.suppress(SpoolFull):
            self._wire.send(entry, _forget)

    def depth(self) -> int:
        """Events without a report."""
        return len(self._taken_at)

    def age_seconds(self) -> float:
        """Of the oldest of them, as if reports came in order."""
        return max(0.0, self._wire.clock.unix() - self._taken_at[0]) if self._taken_at else 0.0

    def used_bytes(self) -> int:
        """Nothing lies on a disk."""
        return 0

    def clock_offset(self) -> ClockOffset | None:
        """The same for all robots of the process."""
        return self._wire.offset()

    def errors(self) -> tuple[str, ...]:
        """What Kafka refused last."""
        return (f"Kafka refused an event: {self._wire.error}",) if self._wire.error else ()

    def drain(self, timeout: float) -> None:
        """The wire is flushed by its owner."""

    def close(self, timeout: float) -> None:
        """The wire outlives its robots."""

    def _done(self) -> None:
        self._taken_at.popleft()


def _forget() -> None:
    return None
