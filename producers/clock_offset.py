"""How far the robot's clock is from the broker's, by the times at which the broker appended what was sent.

Sent at t by the robot's clock and heard of after a latency l, an event was appended between t and t + l. So the
broker's clock minus the robot's is its append time minus t + l/2, give or take l/2 (Cristian, 1989). The sample
with the smallest latency of the last minutes counts.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

# Quartz drifts by some 20 ppm: 6 ms in this time, less than the usual latency.
_KEPT_SECONDS = 300.0
# Kafka's times are whole milliseconds.
_RESOLUTION = 0.001


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Broker's clock minus robot's, in seconds, give or take `error`."""

    seconds: float
    error: float


class OffsetEstimate:
    """The best of the samples of the last minutes."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, ClockOffset]] = deque()

    def sample(self, *, sent_at: float, latency: float, appended_at: float, now: float) -> None:
        """One event: unix seconds by the robot's clock, by the broker's, and monotonic seconds."""
        error = latency / 2 + _RESOLUTION
        found = ClockOffset(appended_at + _RESOLUTION / 2 - (sent_at + latency / 2), error)
        # What is older and worse will never be the best again.
        while self._samples and self._samples[-1][1].error >= found.error:
            self._samples.pop()
        # Samples that cannot be true together: one of the clocks was set. The newest tells how it is now, and
        # those before one that contradicts it are as old.
        while any(abs(one.seconds - found.seconds) > one.error + found.error for _, one in self._samples):
            self._samples.popleft()
        self._samples.append((now, found))
        while now - self._samples[0][0] > _KEPT_SECONDS:
            self._samples.popleft()

    def best(self) -> ClockOffset | None:
        """None before the first sample."""
        return self._samples[0][1] if self._samples else None
