from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.emulator.schedule import Schedule

ROBOTS = st.integers(1, 500)
RATES = st.sampled_from([0.5, 10.0, 30.0, 50.0, 1_000.0])


@given(ROBOTS, RATES, st.integers(1, 5))
def test_each_robot_steps_once_a_period_and_evenly_spread(robots: int, hz: float, periods: int) -> None:
    schedule = Schedule(robots, hz, start=100.0)
    steps: Counter[int] = Counter()
    sizes = set()
    while schedule.due_at < 100.0 + (periods - 1e-6) / hz:
        due = schedule.next(schedule.due_at)
        sizes.add(len(due))
        steps.update(due)
    assert steps == dict.fromkeys(range(robots), periods)
    assert schedule.skipped == 0
    assert max(sizes) - min(sizes) <= 1


@given(ROBOTS, RATES, st.lists(st.floats(0, 3), min_size=1, max_size=20))
def test_what_comes_too_late_is_left_out_and_counted_and_nobody_catches_up(
    robots: int, hz: float, delays: list[float]
) -> None:
    schedule = Schedule(robots, hz, start=0.0)
    steps, now = 0, 0.0
    for delay in delays:
        now = max(now, schedule.due_at) + delay / hz
        steps += len(schedule.next(now))
        assert now - schedule.due_at < 1 / hz + 1e-6, "what is left is less than a period behind"
    due = schedule.due_at * hz * robots
    assert steps + schedule.skipped == pytest.approx(due, abs=robots)
