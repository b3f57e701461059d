"""The load: steps of many robots, interleaved, in whole episodes, on the real topics."""

from __future__ import annotations

from benchmarks.materializer.emulator import EPISODE_STEPS, EmulatedFleet
from infra.settings import Settings


def send_load(settings: Settings, steps: int, robots: int) -> int:
    """Put about `steps` steps on the robot topics, as fast as it goes; how many there are exactly."""
    fleet = EmulatedFleet(settings, robots, staggered=False, linger_ms=20)
    for _ in range(max(1, steps // (robots * EPISODE_STEPS)) * EPISODE_STEPS):
        fleet.tick()
    fleet.finish()
    return fleet.steps
