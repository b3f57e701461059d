"""Time, injected: the core never asks the machine."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

_time = time.time


class Clock(Protocol):
    """What the core needs to know about time."""

    def now(self) -> datetime:
        """Wall clock, aware UTC."""
        ...

    def unix(self) -> float:
        """The same in seconds since 1970, to a microsecond: cheaper, for control loops."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> datetime:
        """Wall clock, aware UTC."""
        return datetime.now(UTC)

    def unix(self) -> float:
        """Wall clock, seconds since 1970."""
        return _time()

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is told to go on; for tests."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        """Start plus what has been advanced, aware UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def unix(self) -> float:
        """Start plus what has been advanced, seconds since 1970."""
        return self.now().timestamp()

    def monotonic(self) -> float:
        """Seconds advanced so far."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._elapsed += seconds
