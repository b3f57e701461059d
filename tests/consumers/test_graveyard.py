"""Dead-letters are asked within a bound, however many episodes of a wave are contested."""

from __future__ import annotations

from collections.abc import Callable, Collection

import pytest

from consumers.graveyard import Patient
from consumers.tombstone import Place
from infra.errors import KafkaUnavailable

PLACE = ("robot-steps", 0, 7)


class Log:
    def __init__(self, failure: Exception | None = None) -> None:
        self.failure, self.asked = failure, 0

    def holds(
        self, places: Collection[Place], _since_ms: int, beat: Callable[[], None] = lambda: None
    ) -> set[Place]:
        self.asked += 1
        beat()
        if self.failure is not None:
            raise self.failure
        return set(places)


def test_what_is_asked_in_time_is_answered_with_signs_of_life() -> None:
    beats: list[None] = []
    log = Log()
    patient = Patient(log, lambda: beats.append(None), lambda: True)
    assert [patient.holds([PLACE], 0) for _ in range(3)] == [{PLACE}] * 3
    assert (log.asked, len(beats)) == (3, 3)


def test_a_silent_broker_is_waited_for_once_and_not_once_for_each_episode() -> None:
    log = Log(KafkaUnavailable("nothing came within 60 s"))
    patient = Patient(log, lambda: None, lambda: True)
    for _ in range(16):
        with pytest.raises(KafkaUnavailable, match="nothing came"):
            patient.holds([PLACE], 0)
    assert log.asked == 1


def test_out_of_time_one_is_asked_so_that_it_goes_on_and_no_other() -> None:
    log = Log()
    patient = Patient(log, lambda: None, lambda: False)
    assert patient.holds([PLACE], 0) == {PLACE}
    with pytest.raises(KafkaUnavailable, match="in one turn"):
        patient.holds([PLACE], 0)
    assert log.asked == 1
