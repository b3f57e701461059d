"""What a robot does not take: until its next boot, or for a while that grows."""

from __future__ import annotations

from infra.clock import ManualClock
from producers.policy_faults import Faults
from tests.producers.fakes import announcement

VERSION = announcement(1, b"weights")


def pauses(faults: Faults, clock: ManualClock, count: int, *, dear: bool) -> list[float]:
    found = []
    for _ in range(count):
        found.append(faults.for_now(VERSION, dear=dear))
        assert faults.waits(VERSION)
        clock.advance(found[-1])
        assert not faults.waits(VERSION)
    return found


def test_what_is_cheap_to_ask_for_is_asked_for_soon_and_for_ever() -> None:
    clock = ManualClock()
    assert pauses(Faults(clock), clock, 9, dear=False) == [5, 10, 20, 40, 80, 160, 320, 600, 600]


def test_what_takes_a_whole_download_to_find_out_is_seldom_asked_for() -> None:
    clock = ManualClock()
    assert pauses(Faults(clock), clock, 7, dear=True) == [600, 1200, 2400, 4800, 9600, 19200, 21600]


def test_what_came_after_all_is_forgotten() -> None:
    clock = ManualClock()
    faults = Faults(clock)
    assert not faults.came(VERSION)
    pauses(faults, clock, 3, dear=False)
    assert faults.came(VERSION)
    assert faults.for_now(VERSION, dear=False) == 5.0


def test_a_version_that_is_made_anew_is_another_one() -> None:
    faults = Faults(ManualClock())
    faults.for_good(VERSION)
    faults.for_now(VERSION, dear=False)
    again = announcement(1, b"other weights")
    assert faults.is_bad(VERSION)
    assert not faults.is_bad(again)
    assert not faults.waits(again)
