"""Records that cannot be used: kept byte for byte on dead-letters, with where they were and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from consumers.records import Origin
from infra.kafka import Message, OutRecord
from schemas.topics import DEAD_LETTERS


class Reason(StrEnum):
    """Why a record is a dead letter; the closed list that metrics and queries group by."""

    UNDECODABLE = "undecodable"
    UNKNOWN_SCHEMA = "unknown_schema"
    FOREIGN_KEY = "foreign_key"
    BAD_ID = "bad_id"
    BAD_FEATURES = "bad_features"
    BAD_TIME = "bad_time"
    WRONG_LENGTH = "wrong_length"
    NOT_FINITE = "not_finite"
    CONFLICT = "conflict"
    FOREIGN_EPISODE = "foreign_episode"
    NEVER_STARTED = "never_started"
    EPISODE_FULL = "episode_full"
    UNKNOWN_EPISODE = "unknown_episode"
    NOT_INDEXABLE = "not_indexable"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record, the reason it cannot be used, and the reason in words."""

    origin: Origin
    reason: Reason
    error: str

    @property
    def nbytes(self) -> int:
        """Roughly what it holds of memory."""
        return 1_000 + len(self.origin.value or b"") + len(self.error)

    def record(self) -> OutRecord:
        """The record for dead-letters: same key, same bytes, same partition number."""
        place = self.origin
        return OutRecord(
            topic=DEAD_LETTERS,
            key=place.key,
            value=place.value,
            partition=place.partition,
            headers=[
                ("topic", place.topic.encode()),
                ("partition", str(place.partition).encode()),
                ("offset", str(place.offset).encode()),
                ("reason", self.reason.value.encode()),
                ("error", self.error.encode()[:1000]),
            ],
        )


def place_of(message: Message) -> tuple[str, int, int]:
    """Topic, partition and offset of the record that a dead letter holds.

    Raises:
        ValueError: the headers that name them are missing or not numbers.
    """
    found = headers(message)
    try:
        return found["topic"], int(found["partition"]), int(found["offset"])
    except KeyError as error:
        raise ValueError(f"dead letter without header {error}") from error


def headers(message: Message) -> dict[str, str]:
    """Headers as text."""
    found = message.headers() or []
    pairs = found.items() if isinstance(found, dict) else found
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
        for name, value in pairs
    }
