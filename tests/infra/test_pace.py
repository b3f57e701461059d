"""A cap on bytes a second: what it lets go, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.clock import ManualClock
from infra.pace import Pace


def test_the_average_is_kept_and_an_idle_minute_saves_nothing_up() -> None:
    clock = ManualClock()
    pace = Pace(100_000.0, clock)
    waited = 0.0
    for _ in range(10):
        pause = pace.reserve(50_000)
        waited += pause
        clock.advance(pause)
    assert waited == pytest.approx(4.5), "the first goes at once, each of the others when the one before is paid"
    clock.advance(60.0)
    assert pace.reserve(50_000) == 0.0
    assert pace.reserve(50_000) == pytest.approx(0.5)


def test_those_who_wait_together_wait_one_after_the_other() -> None:
    pace = Pace(100.0, ManualClock())
    assert [pace.reserve(50) for _ in range(3)] == [0.0, 0.5, 1.0]


def test_without_a_cap_nobody_waits() -> None:
    pace = Pace(None, ManualClock())
    assert [pace.reserve(10**12) for _ in range(2)] == [0.0, 0.0]


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 3)), min_size=1, max_size=50))
def test_in_any_span_no_more_goes_than_the_rate_and_one_more(asked: list[tuple[int, float]]) -> None:
    clock, went = ManualClock(), list[tuple[float, int]]()
    pace = Pace(1000.0, clock)
    for count, idle in asked:
        clock.advance(idle)
        clock.advance(pace.reserve(count))
        went.append((clock.monotonic(), count))
    for first, (begun, _) in enumerate(went):
        for ended, _ in went[first:]:
            between = sum(count for at, count in went[first:] if at < ended)
            assert between <= 1000.0 * (ended - begun) + 1e-3
