from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from infra.errors import ObjectMissing, Unavailable
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
