"""The brokers' time, as whoever reads their records can tell it: no other machine's clock is believed for it."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from infra.clock import Clock

FAR_SECONDS = 60.0
"""Between this machine's clock and the brokers'; unless much is to read, no record waits for as long."""
WARN_SECONDS = 3600.0
"""Between two warnings while it stays so."""

_log = structlog.get_logger(__name__)


class BrokerTime:
    """Append time of what was read last, and what went by since on a clock of which only differences count.

    Never ahead of the brokers' by more than they differ among themselves; behind it by as much as the last record
    was old when it was read. So a wait in this time ends no sooner than it should, and no later than if it
    began with the last reading. Only that one counts: whatever jumped before it, theirs or ours, is over with it.
    """

    def __init__(self) -> None:
        self._appended_ms: int | None = None
        self._read_ms = 0

    def read(self, appended_ms: int, now_ms: int) -> None:
        """A record was read at `now_ms`; of several that were read at once, the latest."""
        self._appended_ms, self._read_ms = appended_ms, now_ms

    def at(self, now_ms: int) -> int | None:
        """Milliseconds since the epoch; None before anything was read."""
        return None if self._appended_ms is None else self._appended_ms + now_ms - self._read_ms


class ClockWatch:
    """Warns when this machine's clock is far from the brokers'. Nothing is decided by that."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._silent_until = clock.monotonic()

    def look(self, times: Iterable[BrokerTime]) -> None:
        """Compare; the one that was read with the least delay says most."""
        wall_ms, now_ms = int(self._clock.unix() * 1000), ms_of(self._clock)
        ahead = min((wall_ms - at for time in times if (at := time.at(now_ms)) is not None), default=0) / 1000
        if abs(ahead) <= FAR_SECONDS or self._clock.monotonic() < self._silent_until:
            return
        self._silent_until = self._clock.monotonic() + WARN_SECONDS
        _log.warning(
            "clock_differs",
            seconds_ahead=round(ahead, 1),
            hint="set this machine's clock, or the brokers'; also said while what is read is that old",
        )


def ms_of(clock: Clock) -> int:
    """Milliseconds for `BrokerTime`: they never go back."""
    return int(clock.monotonic() * 1000)
