"""Records as they lie in Kafka."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Record(Protocol):
    """A consumed record, as Kafka's client gives it."""

    def topic(self) -> str | None:
        """Its topic."""

    def partition(self) -> int | None:
        """Its partition number."""

    def offset(self) -> int | None:
        """Its offset."""

    def timestamp(self) -> tuple[int, int]:
        """Kind of its time, and milliseconds since the epoch."""

    def key(self) -> str | bytes | None:
        """Its key."""

    def value(self) -> str | bytes | None:
        """Its value."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A record as it lies in Kafka; `appended_ms` is the broker's time in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    appended_ms: int
    key: bytes | None
    value: bytes | None


def origin(record: Record) -> Origin:
    """Where a record lies, and its bytes."""
    return Origin(
        topic=str(record.topic()),
        partition=int(record.partition() or 0),
        offset=int(record.offset() or 0),
        appended_ms=record.timestamp()[1],
        key=_bytes(record.key()),
        value=_bytes(record.value()),
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
