"""How fast bytes may go over a link that others need, too."""

from __future__ import annotations

import threading

from infra.clock import Clock


class Pace:
    """So many bytes a second on average; time without any saves nothing up. Threads may share it."""

    def __init__(self, bytes_per_second: float | None, clock: Clock) -> None:
        """None: no cap."""
        self._rate = bytes_per_second
        self._clock = clock
        self._free_at = clock.monotonic()
        self._lock = threading.Lock()

    def reserve(self, count: int) -> float:
        """Seconds until `count` bytes may go; those after them wait for as long as these take."""
        if self._rate is None:
            return 0.0
        with self._lock:
            now = self._clock.monotonic()
            begin = max(self._free_at, now)
            self._free_at = begin + count / self._rate
            return begin - now
