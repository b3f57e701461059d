from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import KafkaUnavailable
from producers import clones
from producers.clones import CloneWatch, other_boot


@given(st.lists(st.just(5), max_size=10), st.lists(st.integers(6, 9), unique=True))
def test_own_heartbeats_and_a_farewell_of_others_are_no_clone(own: list[int], farewells: list[int]) -> None:
    assert other_boot(5, own + farewells) is None


@given(st.lists(st.sampled_from([4, 5, 6]), max_size=10))
def test_whoever_else_reports_twice_is_one(epochs: list[int]) -> None:
    found = other_boot(5, epochs)
    twice = [epoch for epoch in (4, 6) if epochs.count(epoch) >= 2]
    assert found == (max(twice) if twice else None)


def test_a_watch_tells_what_the_last_look_found_and_survives_a_broker_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[list[int] | Exception] = [[5, 7, 7], KafkaUnavailable("away"), ValueError("broken"), [5, 5]]
    seen: list[str | None] = []
    done = threading.Event()

    def look(_wait: Callable[[float], bool]) -> list[int]:
        seen.append(watch.notice)
        if not looks:
            done.set()
            return []
        found = looks.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(clones, "_FIRST", 0.01)
    monkeypatch.setattr(clones, "_PAUSE", 0.01)
    watch = CloneWatch(look, "arm-7", 5)
    assert done.wait(60)
    watch.close()
    assert seen[0] is None
    assert all("robot_id arm-7 is alive (boot epoch 7" in str(notice) for notice in seen[1:4])
    assert seen[4] is None
