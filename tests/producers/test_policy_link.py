"""How much a request asks for: what the link brings in time, whatever the link."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.clock import ManualClock
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from producers.policy_link import _FIRST, _LARGEST, _SMALLEST, Link

TIMEOUT = 30.0
MUCH = 10**12


class SlowLink:
    """Brings so many bytes a second, and nothing of what takes longer than the bound of a request."""

    def __init__(self, rate: float, cap: float | None = None) -> None:
        self.rate = rate
        self.clock = ManualClock()
        self.link = Link(cap, self.clock)
        self.came = 0
        self.failures = 0

    def turn(self) -> int:
        """One request; bytes that it asked for."""
        length = self.link.length(MUCH)
        try:
            self.came += len(self.link.read(self._ask(length)))
        except ObjectStoreUnavailable:
            self.failures += 1
        return length

    def _ask(self, length: int) -> Callable[[], memoryview]:
        def ask() -> memoryview:
            self.clock.advance(min(TIMEOUT, length / self.rate))
            if length / self.rate > TIMEOUT:
                raise ObjectStoreUnavailable("request or response body error")
            return memoryview(bytes(length))

        return ask


@settings(deadline=None, max_examples=30)
@given(rate=st.floats(2_500, 2e6))
def test_any_link_that_brings_the_smallest_part_in_time_makes_progress(rate: float) -> None:
    slow = SlowLink(rate)
    for _ in range(30):
        slow.turn()
    assert slow.failures <= 4, "halved from 1 MiB until it fits, and never again asked for too much"
    assert slow.came > 0


def test_a_part_takes_seconds_so_that_a_rollout_is_heard_meanwhile() -> None:
    slow = SlowLink(200_000.0)
    for _ in range(30):
        slow.turn()
    assert 1.0 <= slow.turn() / slow.rate <= 4.0


def test_a_fast_link_is_asked_for_the_largest_part_within_a_few_requests() -> None:
    fast = SlowLink(1e9)
    assert [fast.turn() for _ in range(4)] == [_FIRST, 2 * _FIRST, 4 * _FIRST, _LARGEST]
    assert fast.turn() == _LARGEST


def test_an_outage_makes_parts_small_and_success_makes_them_grow_again() -> None:
    world = SlowLink(1e9)
    for _ in range(5):
        world.turn()
    world.rate = 1.0
    asked = [world.turn() for _ in range(9)]
    assert asked[-1] == _SMALLEST
    world.rate = 1e9
    for _ in range(8):
        world.turn()
    assert world.turn() == _LARGEST


def test_under_a_cap_no_part_is_larger_than_a_second_of_it() -> None:
    capped = SlowLink(1e9, cap=300_000.0)
    assert {capped.turn() for _ in range(9)} == {300_000}
    assert SlowLink(1e9, cap=10.0).turn() == _SMALLEST


def test_what_is_missing_says_nothing_about_the_link() -> None:
    link = Link(None, ManualClock())

    def missing() -> memoryview:
        raise ObjectMissing("none")

    with pytest.raises(ObjectMissing):
        link.read(missing)
    assert link.length(MUCH) == _FIRST
