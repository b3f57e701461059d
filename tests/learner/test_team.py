from __future__ import annotations

import threading

import pytest

from learner import team as team_module
from learner.team import Team, Watched


class Written:
    """A wire that nobody hears. Implements `Wire`."""

    def __init__(self) -> None:
        self.told: list[bytes | None] = []

    def gather(self, data: bytes) -> list[bytes]:
        return [data]

    def broadcast(self, data: bytes | None, rank: int) -> bytes:
        assert rank == 0
        self.told.append(data)
        return data or b""


@pytest.mark.parametrize("every", [1.0, 100.0, 5_000.0])
def test_ranks_that_wait_for_a_word_hear_one_long_before_they_give_the_first_up(every: float) -> None:
    wire = Written()
    team, day = Team(2, rank=0, wire=wire), team_module._SILENCE.total_seconds()
    for number in range(int(10 * day / every)):
        team.say_alive(number * every)
    assert set(wire.told) == {b'{"do": "nothing"}'}
    assert 10 * day // 5_000.0 <= len(wire.told) <= 10 * day / 60.0
    Team().say_alive(0.0)


class Held:
    """A wire on which the others are late. Implements `Wire`."""

    def __init__(self) -> None:
        self.come = threading.Event()

    def gather(self, data: bytes) -> list[bytes]:
        assert self.come.wait(60.0)
        return [data]

    def broadcast(self, data: bytes | None, rank: int) -> bytes:
        del rank
        assert self.come.wait(60.0)
        return data or b""


def test_who_waits_for_another_rank_is_alive_meanwhile_and_not_because_of_it_afterwards() -> None:
    wire, alive = Held(), threading.Semaphore(0)
    heard = 0

    def hear() -> None:
        nonlocal heard
        heard += 1
        alive.release()
        if heard % 3 == 0:
            wire.come.set()

    team = Team(2, rank=0, wire=Watched(wire, hear, every=0.001))
    team.tell(b"nothing")
    assert heard >= 3
    wire.come.clear()
    assert team.all(b"x") == [b"x"]
    assert heard >= 6
    silent = Watched(wire, hear, every=0.001)
    before = heard
    wire.come.set()
    for _ in range(50):
        threading.Event().wait(0.001)
    assert heard <= before + 1, "only a call that lasts is told of"
    assert silent.gather(b"y") == [b"y"]
