from __future__ import annotations

from infra.backoff import FIRST_PAUSE, LONGEST_PAUSE, Backoff
from infra.clock import ManualClock


def test_pauses_double_up_to_the_longest_and_begin_anew_after_a_success() -> None:
    backoff = Backoff(ManualClock())
    assert [backoff.failed() for _ in range(7)] == [FIRST_PAUSE, 0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE]
    assert backoff.succeeded()
    assert not backoff.succeeded()
    assert backoff.failed() == FIRST_PAUSE


def test_what_remains_of_a_pause_shrinks_with_time_and_is_nothing_after_a_success() -> None:
    clock = ManualClock()
    backoff = Backoff(clock)
    assert backoff.remaining() == 0.0
    backoff.failed()
    backoff.failed()
    clock.advance(0.125)
    assert backoff.remaining() == 0.375
    clock.advance(1.0)
    assert backoff.remaining() == 0.0
    backoff.failed()
    backoff.succeeded()
    assert backoff.remaining() == 0.0
