"""The link to the object store as downloads find it: how much one request asks for, and when it may."""

from __future__ import annotations

from collections.abc import Callable

from infra.clock import Clock
from infra.errors import ObjectStoreUnavailable
from infra.pace import Pace

# Bytes of one request. Larger ones gain nothing; smaller ones are mostly waiting for the answer.
_LARGEST, _SMALLEST = 8 * 2**20, 64 * 2**10
_FIRST = 2**20
# Seconds that a request takes: shorter ones grow, longer ones shrink. Nothing is heard until one is over.
_SHORT, _LONG = 1.0, 4.0


class Link:
    """Sizes requests by those before, so that a slow link brings one before its time is over, and keeps a cap.

    Raises (`read`): what is raised by what it calls.
    """

    def __init__(self, bytes_per_second: float | None, clock: Clock) -> None:
        """None: no cap."""
        self._clock = clock
        self._pace = Pace(bytes_per_second, clock)
        # About a second's worth, so that a cap is kept from second to second.
        self._most = max(_SMALLEST, min(_LARGEST, int(bytes_per_second or _LARGEST)))
        self._size = min(_FIRST, self._most)

    def length(self, left: int) -> int:
        """Bytes to ask for at once, where `left` are missing."""
        return min(self._size, left)

    def pause(self, length: int) -> float:
        """Seconds to wait before so many may be asked for."""
        return self._pace.reserve(length)

    def read(self, ask: Callable[[], memoryview]) -> memoryview:
        """One request's answer."""
        begun = self._clock.monotonic()
        try:
            part = ask()
        except ObjectStoreUnavailable:
            self._shrink()
            raise
        took = self._clock.monotonic() - begun
        if took > _LONG:
            self._shrink()
        elif took < _SHORT:
            self._size = min(self._most, 2 * self._size)
        return part

    def _shrink(self) -> None:
        self._size = max(_SMALLEST, self._size // 2)
