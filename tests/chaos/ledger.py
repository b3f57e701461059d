"""What was acknowledged: for every emulated event, the places in Kafka where the broker said that it lies."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from tests.chaos.robot import Event

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass
class Copies:
    """Where an event lies, and when each copy was appended (broker's milliseconds)."""

    event: Event
    value: bytes | None
    places: list[Place] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


class Ledger:
    """Filled from delivery reports, and by nothing else."""

    def __init__(self) -> None:
        self.copies: dict[int, Copies] = {}
        self.at: dict[Place, Copies] = {}
        self.unknown: list[str] = []

    def acknowledged(self, event: Event, value: bytes | None, place: Place, appended_ms: int) -> None:
        """The broker acknowledged a copy."""
        copies = self.copies.setdefault(id(event), Copies(event, value))
        copies.places.append(place)
        copies.times.append(appended_ms)
        self.at[place] = copies

    def failed(self, event: Event, error: str) -> None:
        """No acknowledgement came: the record may lie there or not. The checker must know."""
        self.unknown.append(f"{event!r}: {error}")

    @property
    def records(self) -> int:
        """Acknowledged records, copies counted."""
        return len(self.at)

    def episodes(self) -> dict[str, list[Copies]]:
        """Acknowledged events that are an episode's, by episode."""
        found: dict[str, list[Copies]] = defaultdict(list)
        for copies in self.copies.values():
            if copies.event.counted:
                found[copies.event.episode_id].append(copies)
        return dict(found)
