"""The events of one boot in their order: each gets the next sequence number once it is safely taken."""

from __future__ import annotations

from typing import Any, TypeVar

from infra.clock import Clock
from producers.outbox import Outbox, item
from schemas.events import RobotEvent

E = TypeVar("E", bound=RobotEvent)


class EventLog:
    """Numbers the events of `(robot_id, boot_epoch)` from 0 without a gap, across the three robot topics."""

    def __init__(self, robot_id: str, boot_epoch: int, outbox: Outbox, clock: Clock) -> None:
        self.robot_id = robot_id
        self.boot_epoch = boot_epoch
        self.next_sequence = 0
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
        self._outbox.append(item(topic, self.robot_id, event, traceparent))
        self.next_sequence += 1
        return event
