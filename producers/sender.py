"""What takes framed records to Kafka, as the spool's publisher and emulated fleets need it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from infra.kafka import OutRecord


class Sender(Protocol):
    """As `infra.kafka.EventProducer` does it."""

    def send(
        self,
        record: OutRecord,
        on_delivery: Callable[[str | None, int], None] | None = None,
        on_appended: Callable[[float], None] | None = None,
    ) -> bool:
        """Queue a record, or say that the queue is full."""

    def poll(self, timeout: float = 0.0) -> None:
        """Serve delivery reports."""

    def flush(self, timeout: float) -> int:
        """Wait for what is queued."""
