"""What is on its way to Kafka, in order; what may be forgotten is what has everything before it acknowledged."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(slots=True)
class _Sent:
    position: int
    taken_at: float
    size: int
    acknowledged: bool = False


class InFlight:
    """Events between being sent and being acknowledged.

    Attributes:
        acknowledged: position up to which everything is.
        bytes: of the events that are on their way.
    """

    def __init__(self, acknowledged: int) -> None:
        self.acknowledged = acknowledged
        self.bytes = 0
        self._events = 0
        self._queue: deque[_Sent] = deque()
        self._by_position: dict[int, list[_Sent]] = {}

    def __len__(self) -> int:
        return self._events

    def sent(self, position: int, taken_at: float, size: int) -> None:
        """An event left; positions only grow, but for two events of one position in spools of older clients."""
        entry = _Sent(position, taken_at, size)
        self._queue.append(entry)
        self._by_position.setdefault(position, []).append(entry)
        self._events += 1
        self.bytes += size

    def unsent(self, position: int) -> None:
        """The event that was sent last could not leave after all."""
        self._queue.pop()
        self._take(position, -1)

    def delivered(self, position: int) -> None:
        """Its report came, in whatever order."""
        self._take(position, 0).acknowledged = True
        while self._queue and self._queue[0].acknowledged:
            done = self._queue.popleft().position
            if not self._queue or self._queue[0].position != done:
                self.acknowledged = done

    def _take(self, position: int, which: int) -> _Sent:
        entries = self._by_position[position]
        entry = entries.pop(which)
        if not entries:
            del self._by_position[position]
        self._events -= 1
        self.bytes -= entry.size
        return entry

    def oldest(self) -> float | None:
        """When the first event without a report was recorded, in unix seconds; None when there is none."""
        return self._queue[0].taken_at if self._queue else None
