from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from producers.clock_offset import OffsetEstimate

LEGS = st.floats(0.0, 5.0)


@given(true=st.floats(-1e5, 1e5), legs=st.lists(st.tuples(LEGS, LEGS), min_size=1, max_size=30))
def test_the_true_offset_lies_within_the_bounds(true: float, legs: list[tuple[float, float]]) -> None:
    estimate, sent_at = OffsetEstimate(), 1.8e9
    for number, (there, back) in enumerate(legs):
        appended_at = int((sent_at + there + true) * 1000) / 1000
        estimate.sample(sent_at=sent_at, latency=there + back, appended_at=appended_at, now=float(number))
        sent_at += there + back + 1.0
    best = estimate.best()
    assert best is not None
    assert abs(best.seconds - true) <= best.error + 1e-5
    assert best.error <= min(there + back for there, back in legs) / 2 + 0.002


def test_a_clock_that_is_set_makes_older_samples_void() -> None:
    estimate = OffsetEstimate()
    estimate.sample(sent_at=1_000.0, latency=0.01, appended_at=1_000.005, now=1.0)
    estimate.sample(sent_at=5_000.0, latency=0.5, appended_at=1_001.2, now=2.0)
    best = estimate.best()
    assert best is not None
    assert abs(best.seconds + 3_999.0) < 0.6


def test_a_sample_is_forgotten_after_some_minutes() -> None:
    estimate = OffsetEstimate()
    assert estimate.best() is None
    estimate.sample(sent_at=0.0, latency=0.01, appended_at=0.005, now=0.0)
    estimate.sample(sent_at=400.0, latency=1.0, appended_at=400.5, now=400.0)
    best = estimate.best()
    assert best is not None
    assert best.error > 0.4


def test_a_small_change_of_the_clock_is_seen_by_the_first_good_sample_whatever_lies_between() -> None:
    estimate, now = OffsetEstimate(), 0.0

    def sample(offset: float, latency: float) -> None:
        nonlocal now
        now += 1.0
        estimate.sample(sent_at=now, latency=latency, appended_at=now + latency / 2 + offset, now=now)

    for _ in range(10):
        sample(0.0, 0.003)
    sample(0.0, 0.100)  # worse, and contradicts nothing
    for _ in range(3):
        sample(0.025, 0.004)
        best = estimate.best()
        assert best is not None
        assert abs(best.seconds - 0.025) <= best.error <= 0.01
