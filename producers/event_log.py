"""The events of one boot in their order: each gets the next sequence number once it is safely taken."""

from __future__ import annotations

from typing import Any, TypeVar

from infra.clock import Clock
from producers.errors import SpoolFull, SpoolUnusable
from producers.outbox import MOST_BYTES, Item, Outbox, item
from producers.tail import Tail
from schemas.codec import latest
from schemas.events import Actor, RobotEvent, Step
from schemas.step_writer import StepWriter
from schemas.topics import ROBOT_STEPS

E = TypeVar("E", bound=RobotEvent)


class EventLog:
    """Numbers the events of `(robot_id, boot_epoch)` from 0 without a gap, across the three robot topics.

    Attributes:
        next_sequence: of the next event.
        unsure: an event is being recorded, or an exception broke that off and `settle` comes before the next one.
            Whoever records says when all that it counts is counted.
    """

    def __init__(self, robot_id: str, boot_epoch: int, outbox: Outbox, clock: Clock) -> None:
        self.robot_id = robot_id
        self.boot_epoch = boot_epoch
        self.next_sequence = 0
        self.unsure = False
        self._key = robot_id.encode()
        self._step = latest(Step.record)
        self._outbox = outbox
        self._clock = clock

    def write(
        self,
        topic: str,
        event_type: type[E],
        *,
        episode_id: str,
        traceparent: bytes,
        **fields: Any,
    ) -> E:
        """Record one event and return it as it travels.

        Raises:
            ValueError: it is larger than a record of its topic may be; it was not recorded, likewise.
            SpoolFull, SpoolUnusable: it was not recorded, and its number is used by the next one.
        """
        event = event_type(
            episode_id=episode_id,
            robot_id=self.robot_id,
            boot_epoch=self.boot_epoch,
            sequence=self.next_sequence,
            captured_at=self._clock.now(),
            **fields,
        )
        taken_at = event.captured_at.timestamp()
        entry = item(topic, self.robot_id, event, traceparent, taken_at)
        if len(entry.body) > MOST_BYTES[topic]:
            raise ValueError(
                f"an event of {len(entry.body)} bytes, and {topic} takes {MOST_BYTES[topic]}: shorten its texts"
            )
        self.unsure = True
        try:
            self._outbox.append(entry)
        except (SpoolFull, SpoolUnusable):
            self.unsure = False
            raise
        self.next_sequence += 1
        return event

    def append(self, entry: Item) -> None:
        """Record what has no sequence, or was given one; likewise.

        Raises:
            SpoolFull, SpoolUnusable: it was not recorded.
        """
        self.unsure = True
        self._outbox.append(entry)

    def settle(self) -> Tail | None:
        """What of this boot is recorded, and go on from there; None where that cannot be known.

        Raises:
            SpoolUnusable: not now.
        """
        tail = self._outbox.settle()
        if tail is not None:
            self.next_sequence = tail.next_sequence
        return tail

    def write_step(  # noqa: PLR0917
        self,
        writer: StepWriter,
        traceparent: bytes,
        index: int,
        actor: Actor,
        policy_version: int,
        vectors: tuple[bytes, bytes, bytes | None],
        reward: float,
    ) -> None:
        """Record one step, as `write` does, with little else than its bytes: this runs in the control loop.

        Whoever makes the writer sees to it that no step is larger than a record of its topic may be.

        Raises:
            SpoolFull, SpoolUnusable: it was not recorded, and its number is used by the next event.
        """
        taken_at = self._clock.unix()
        # A float of this size is exact to a quarter of a microsecond.
        captured_at = round(taken_at * 1e6)
        body = writer.body(self.next_sequence, captured_at, index, actor, policy_version, *vectors, reward)
        entry = Item(ROBOT_STEPS, self._key, body, self._step, traceparent, taken_at, None)
        self.unsure = True
        try:
            self._outbox.append(entry)
        except (SpoolFull, SpoolUnusable):
            self.unsure = False
            raise
        self.next_sequence += 1
