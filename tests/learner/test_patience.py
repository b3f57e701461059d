from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from infra.clock import ManualClock
from infra.errors import DiskFull, ObjectMissing, Unavailable
from infra.health import STALL_SECONDS, Health
from learner.patience import Patience, Stopped


def test_call_is_tried_until_the_server_answers() -> None:
    answers: Iterator[Exception | str] = iter([Unavailable("away"), "here"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert Patience(threading.Event()).call("test", ask) == "here"


def test_other_errors_pass() -> None:
    def ask() -> None:
        raise ObjectMissing("gone")

    with pytest.raises(ObjectMissing):
        Patience(threading.Event()).call("test", ask)


def test_stop_is_heard_while_a_server_hangs() -> None:
    stop, release = threading.Event(), threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        Patience(stop).call("test", lambda: release.wait(60.0))
    assert not release.is_set()
    release.set()


def test_nothing_is_called_after_a_stop() -> None:
    stop = threading.Event()
    stop.set()
    called: list[int] = []
    with pytest.raises(Stopped):
        Patience(stop).call("test", lambda: called.append(1))
    assert called == []


class Passing(threading.Event):
    """A stop that nobody asks for, and waits that take no time but by the clock."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.advance(timeout or 0.0)
        return self.is_set()


def test_who_waits_for_room_on_the_disk_for_longer_than_a_stall_has_not_stalled() -> None:
    clock = ManualClock()
    health = Health(clock)
    patience = Patience(Passing(clock), health)
    patience.check()
    while clock.monotonic() < 3 * STALL_SECONDS:
        patience.wait_for_room(DiskFull("no room for frames"))
        assert health.health()[0]
        assert health.readiness() == (False, "no room for frames")


def test_what_work_waits_for_is_said_until_all_of_it_is_over() -> None:
    health = Health()
    patience = Patience(threading.Event(), health)
    patience.check()
    patience.held_up("refused", "payload")
    patience.held_up("too large", "announcement")
    patience.held_up("", "payload")
    patience.call("test", lambda: None)
    assert health.readiness() == (False, "too large")
    patience.held_up("", "announcement")
    assert health.readiness()[0]
