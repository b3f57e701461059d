"""When to try again while a server does not answer: pauses that double, up to a longest one.

Nothing here sleeps. Who waits does it in its own way: on its stop event, which ends the wait at once, or by
serving its consumer group meanwhile. stamina, which waits out short outages elsewhere, sleeps through both.
"""

from __future__ import annotations

from infra.clock import Clock, SystemClock

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
"""Seconds."""


class Backoff:
    """Pauses double from `FIRST_PAUSE` to `LONGEST_PAUSE` while attempts fail."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._retry_at = 0.0
        self.pause = 0.0
        """Seconds of the present pause; 0 while all is well."""

    def failed(self) -> float:
        """An attempt failed; the seconds to wait before the next."""
        self.pause = min(max(self.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._retry_at = self._clock.monotonic() + self.pause
        return self.pause

    def succeeded(self) -> bool:
        """An attempt succeeded; whether there had been failures before it."""
        waited = self.pause > 0
        self.pause = 0.0
        return waited

    def remaining(self) -> float:
        """Seconds until the next attempt is due; 0 when it is."""
        return max(0.0, self._retry_at - self._clock.monotonic()) if self.pause else 0.0
