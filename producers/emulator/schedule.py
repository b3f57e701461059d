"""When which robot of a process steps: each once a period, spread evenly over it, and never in a burst.

Pure: it is told the time, and says what is due.
"""

from __future__ import annotations

import math

# Robots that are due within so many seconds step together: a sleep for each alone would cost more than its step.
_SLOT = 0.005


class Schedule:
    """Fixed times. What comes more than a period late is left out and counted: a real robot does not step twice.

    Attributes:
        skipped: steps that were left out.
    """

    def __init__(self, robots: int, hz: float, start: float) -> None:
        self._period = 1.0 / hz
        self._slots = max(1, min(robots, math.floor(self._period / _SLOT)))
        self._robots = robots
        self._start = start
        self._turn = 0
        self.skipped = 0

    @property
    def due_at(self) -> float:
        """When the next slot is due, monotonic seconds."""
        return self._start + self._turn * self._period / self._slots

    def next(self, now: float) -> range:
        """Robots that step now, by number, once `now` has reached `due_at`."""
        behind = math.floor((now - self.due_at) / self._period)
        if behind > 0:
            self.skipped += behind * self._robots
            self._turn += behind * self._slots
        slot = self._turn % self._slots
        self._turn += 1
        return range(slot, self._robots, self._slots)
