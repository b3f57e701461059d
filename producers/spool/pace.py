"""How fast the spool is emptied: a fleet that comes back at once must not flood the brokers."""

from __future__ import annotations

# Seconds' worth of events that may go at once.
_BURST = 0.1


class Pace:
    """Allows `rate` events a second on average."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * _BURST)
        self._left = self._most
        self._at = now

    def allowed(self, now: float) -> int:
        """How many events may go at this moment (monotonic seconds)."""
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        return int(self._left)

    def used(self, events: int) -> None:
        """So many went."""
        self._left -= events
