"""Episodes time out by the brokers' time, whatever the clock of the machine says that reads them."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from consumers.broker_time import FAR_SECONDS, WARN_SECONDS, BrokerTime, ClockWatch
from infra.clock import Clock, ManualClock
from schemas.events import ClosedBy
from schemas.topics import ROBOT_EPISODES
from tests.consumers.fakes import Brokers, Rig, restarted, rig
from tests.consumers.robots import Robot

TIMEOUT = 600.0
HOUR = 3600.0


class Wrong:
    """The brokers' clock, but for what it says the time of day is; `ahead` in seconds."""

    def __init__(self, right: Clock, ahead: float) -> None:
        self.right, self.ahead = right, ahead

    def now(self) -> datetime:
        return self.right.now() + timedelta(seconds=self.ahead)

    def unix(self) -> float:
        return self.now().timestamp()

    def monotonic(self) -> float:
        return self.right.monotonic()


def go_on(member: Rig, seconds: float, pause: float = 20.0) -> None:
    """Turn from time to time for so long."""
    until = member.brokers.clock.monotonic() + seconds
    while member.brokers.clock.monotonic() < until:
        member.turns(3)
        member.brokers.clock.advance(pause)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR, 24 * HOUR, 0.0])
def test_an_episode_under_way_is_whole_whatever_the_members_clock_says(tmp_path: Path, ahead: float) -> None:
    brokers, events = Brokers(), Robot().episode(40)
    member = rig(tmp_path, brokers, clock=Wrong(brokers.clock, ahead))
    for event in events:
        brokers.send([event], 0)
        go_on(member, 30.0)
    go_on(member, 30.0)
    [announced] = brokers.announcements(0)
    assert (announced.revision, announced.closed_by, announced.step_count) == (1, ClosedBy.COMPLETE, 40)


@pytest.mark.parametrize("ahead", [HOUR, -HOUR, 24 * HOUR, 0.0])
def test_an_episode_that_fell_silent_is_sealed_after_the_timeout_whatever_the_members_clock_says(
    tmp_path: Path, ahead: float
) -> None:
    brokers = Brokers()
    member = rig(tmp_path, brokers, clock=Wrong(brokers.clock, ahead))
    brokers.send(Robot().episode(3, ends=False), 0)
    go_on(member, TIMEOUT - 60.0)
    assert brokers.announced(0) == []
    go_on(member, 120.0)
    assert [event.closed_by for event in brokers.announcements(0)] == [ClosedBy.TIMEOUT]


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_clock_that_is_set_ends_no_episode_and_keeps_none_open(tmp_path: Path, jump: float) -> None:
    brokers = Brokers()
    clock = Wrong(brokers.clock, 0.0)
    member = rig(tmp_path, brokers, clock=clock)
    brokers.send(Robot().episode(3, ends=False), 0)
    go_on(member, TIMEOUT / 2)
    clock.ahead = jump
    go_on(member, TIMEOUT / 2 - 60.0)
    assert brokers.announced(0) == []
    go_on(member, 120.0)
    assert len(brokers.announced(0)) == 1


@pytest.mark.parametrize("others", [False, True])
def test_after_a_restart_a_silent_episode_waits_anew_unless_somebody_else_s_records_tell_the_time(
    tmp_path: Path, *, others: bool
) -> None:
    brokers, other = Brokers(), Robot("robot-2")
    first = rig(tmp_path / "one", brokers)
    brokers.send(Robot().episode(3, ends=False), 0)
    go_on(first, TIMEOUT - 60.0)
    second = restarted(first, tmp_path / "two", clock=Wrong(brokers.clock, HOUR))
    go_on(second, 30.0)
    assert brokers.announced(0) == []
    if others:
        brokers.send(other.episode(1), 0)
    go_on(second, 120.0)
    timed_out = [event for event in brokers.announcements(0) if event.closed_by is ClosedBy.TIMEOUT]
    assert len(timed_out) == (1 if others else 0)
    go_on(second, TIMEOUT)
    timed_out = [event for event in brokers.announcements(0) if event.closed_by is ClosedBy.TIMEOUT]
    assert len(timed_out) == 1


def test_an_older_record_of_a_slower_topic_does_not_put_the_time_back(tmp_path: Path) -> None:
    brokers = Brokers()
    first = rig(tmp_path / "one", brokers)
    for event in Robot().episode(3, ends=False):
        brokers.send([event], 0)
        go_on(first, TIMEOUT - 60.0)
    assert brokers.announced(0) == []
    brokers.send(Robot("robot-2").episode(1)[1:2], 0)  # a step, so that another topic's record is the last
    slow = ROBOT_EPISODES, 0
    late, brokers.logs[slow] = brokers.logs[slow], []
    second = restarted(first, tmp_path / "two")
    go_on(second, 20.0)
    brokers.logs[slow] = late
    go_on(second, TIMEOUT + 100.0)
    assert [event.closed_by for event in brokers.announcements(0)][:1] == [ClosedBy.TIMEOUT]


moments = st.tuples(st.integers(0, 10_000_000), st.integers(0, 10_000_000))


@given(st.lists(moments, min_size=1, max_size=20), st.integers(-(10**12), 10**12), st.integers(0, 10**8))
def test_it_is_never_ahead_of_the_brokers_and_behind_by_the_last_delay_alone(
    reads: list[tuple[int, int]], origin: int, since: int
) -> None:
    time, broker_ms = BrokerTime(), 1_700_000_000_000
    assert time.at(origin) is None
    for pause, delay in reads:
        broker_ms += pause
        time.read(broker_ms - delay, broker_ms + origin)
    assert time.at(broker_ms + since + origin) == broker_ms + since - reads[-1][1]


@pytest.mark.parametrize("ahead", [FAR_SECONDS + 1.0, -FAR_SECONDS - 1.0])
def test_a_clock_that_is_far_off_is_told_once_an_hour(ahead: float) -> None:
    right = ManualClock()
    wrong, time, late = Wrong(right, ahead), BrokerTime(), BrokerTime()
    watch = ClockWatch(wrong)
    told = []
    for _ in range(int(2 * WARN_SECONDS / 10)):
        time.read(int(right.unix() * 1000) - 5, int(right.monotonic() * 1000))
        late.read(int((right.unix() - HOUR) * 1000), int(right.monotonic() * 1000))
        with capture_logs() as logs:
            watch.look([BrokerTime(), time, late])
        told += [log["seconds_ahead"] for log in logs]
        right.advance(10.0)
    assert told == [pytest.approx(ahead, abs=0.1)] * 2


def test_a_clock_that_is_right_or_of_which_nothing_is_known_is_no_matter() -> None:
    clock, time = ManualClock(), BrokerTime()
    watch = ClockWatch(clock)
    with capture_logs() as logs:
        watch.look([])
        watch.look([time])
        time.read(int(clock.unix() * 1000) - 900, 0)
        watch.look([time])
    assert logs == []
