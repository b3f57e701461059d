from __future__ import annotations

import threading

import pytest

from infra.errors import KafkaUnavailable
from infra.kafka.bounded import within


def test_the_outcome_is_that_of_the_call() -> None:
    assert within(60.0, lambda: 7, "counting") == 7
    assert within(60.0, lambda: None, "doing") is None
    with pytest.raises(ValueError, match="no such"):
        within(60.0, lambda: int("no such"), "reading")


def test_a_call_that_does_not_return_is_given_up_by_name() -> None:
    released = threading.Event()
    with pytest.raises(KafkaUnavailable, match="waiting did not return"):
        within(0.05, released.wait, "waiting")
    released.set()
