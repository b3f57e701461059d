from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.health import Health
from infra.object_store import ObjectStore
from learner.cache import PayloadCache
from learner.episodes import Episode
from learner.errors import BadPayload
from learner.patience import Patience, Stopped
from learner.payloads import PayloadFetcher
from tests.learner.synthetic import Synthetic, make_episode


class Shelf(ObjectStore):
    """Objects in memory, away for the first `outages` requests. The real store is met in integration tests."""

    def __init__(self, made: list[Synthetic], outages: int = 0) -> None:
        self.bucket = "sop"
        self.outages = outages
        self.asked: list[str] = []
        self._objects = {self.key(item.event.payload_uri): item.payload for item in made}

    def get(self, key: str) -> bytes:
        self.asked.append(key)
        if self.outages > 0:
            self.outages -= 1
            raise ObjectStoreUnavailable("away")
        if key not in self._objects:
            raise ObjectMissing(key)
        return self._objects[key]


def test_payloads_come_in_the_order_asked_whatever_arrives_first_and_bad_ones_as_their_error() -> None:
    made = [make_episode(n, steps=3) for n in range(100)]
    shelf = Shelf(made[:50] + made[51:])
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()), ahead=8)
    found = list(fetcher.take_all([item.record for item in made]))
    assert [record for record, _ in found] == [item.record for item in made]
    assert [n for n, (_, episode) in enumerate(found) if isinstance(episode, BadPayload)] == [50]
    assert len(shelf.asked) == 100
    fetcher.close()


def test_outage_is_waited_out() -> None:
    made = make_episode(1)
    fetcher = PayloadFetcher(Shelf([made], outages=2), Patience(threading.Event()))
    assert fetcher.take(made.record).record == made.record
    fetcher.close()


class Refusing(Shelf):
    """Answers, and refuses one object."""

    refused: str | None = None

    def get(self, key: str) -> bytes:
        if key == self.refused:
            raise ObjectStoreUnavailable("403")
        return super().get(key)


def told(health: Health, expected: tuple[bool, str]) -> None:
    until = time.monotonic() + 60.0
    while health.readiness() != expected:
        assert time.monotonic() < until, health.readiness()
        time.sleep(0.005)


def test_one_object_that_is_refused_is_named_until_it_comes_or_nobody_wants_it_any_more() -> None:
    made = [make_episode(n, steps=3) for n in range(3)]
    shelf, health = Refusing(made), Health(ManualClock())
    patience = Patience(threading.Event(), health)
    fetcher = PayloadFetcher(shelf, patience, threads=2)
    uri = made[0].event.payload_uri
    for wanted in (True, False):
        shelf.refused = shelf.key(uri)
        assert not fetcher.ready(made[0].record)
        assert fetcher.take(made[1].record).record == made[1].record
        told(health, (False, f"{uri}: 403"))
        assert patience.call("object store", lambda: 1) == 1
        assert health.readiness() == (False, f"{uri}: 403"), "that a server answers otherwise does not help"
        if wanted:
            shelf.refused = None
            assert fetcher.take(made[0].record).record == made[0].record
        else:
            fetcher.drop(made[0].record)
        told(health, (True, "ready"))
    assert [fetcher.take(item.record).record for item in made[1:]] == [item.record for item in made[1:]]
    fetcher.close()


def test_payload_in_another_bucket_is_bad() -> None:
    made = make_episode(1, bucket="elsewhere")
    fetcher = PayloadFetcher(Shelf([]), Patience(threading.Event()))
    with pytest.raises(BadPayload, match="elsewhere"):
        fetcher.take(made.record)
    fetcher.close()


def test_stop_ends_the_wait_for_a_store_that_stays_away() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    fetcher = PayloadFetcher(Shelf([], outages=10_000), Patience(stop))
    with pytest.raises(Stopped):
        fetcher.take(make_episode(1).record)
    fetcher.close()


class Broken(Shelf):
    """Fails in a way that nobody has thought of."""

    def get(self, key: str) -> bytes:
        raise RuntimeError(f"no idea: {key}")


def test_an_error_that_nobody_expects_reaches_whoever_takes_the_payload_and_the_threads_live_on() -> None:
    made = [make_episode(n) for n in range(6)]
    fetcher = PayloadFetcher(Broken(made), Patience(threading.Event()), threads=2)
    for item in made:
        with pytest.raises(RuntimeError, match="no idea"):
            fetcher.take(item.record)
    fetcher.close()


def test_what_was_fetched_once_comes_from_the_disk_and_is_fetched_again_when_it_is_altered(tmp_path: Path) -> None:
    made = [make_episode(n, steps=3) for n in range(20)]
    shelf = Shelf(made)
    for _ in range(3):
        fetcher = PayloadFetcher(shelf, Patience(threading.Event()), cache=PayloadCache(tmp_path, 10**6))
        found = [episode for _, episode in fetcher.take_all(item.record for item in made)]
        fetcher.close()
        for episode, item in zip(found, made, strict=True):
            assert isinstance(episode, Episode)
            np.testing.assert_array_equal(episode.frames.states, item.episode.frames.states)
    assert len(shelf.asked) == 20
    (path,) = tmp_path.rglob(made[0].record.payload_sha256)
    path.write_bytes(b"altered")
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()), cache=PayloadCache(tmp_path, 10**6))
    assert len(fetcher.take(made[0].record).frames) == 3
    fetcher.close()
    assert len(shelf.asked) == 21


def test_a_payload_of_another_hash_is_bad_and_not_kept(tmp_path: Path) -> None:
    made = make_episode(1)
    shelf = Shelf([Synthetic(made.event, made.payload + b"x")])
    cache = PayloadCache(tmp_path, 10**6)
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()), cache=cache)
    with pytest.raises(BadPayload, match="hashes to"):
        fetcher.take(made.record)
    fetcher.close()
    assert list(cache.files()) == []


def test_what_memory_has_no_room_for_goes_to_the_disk_ahead_of_its_use(tmp_path: Path) -> None:
    made = [make_episode(n, steps=10) for n in range(30)]
    shelf, cache = Shelf(made), PayloadCache(tmp_path, 10**6)
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()), cache=cache, ahead_steps=50)
    for item in made:
        fetcher.prefetch(item.record)
    until = time.monotonic() + 60.0
    while len(list(cache.files())) < len(made):
        assert time.monotonic() < until, "not all was fetched ahead"
        time.sleep(0.01)
    asked = len(shelf.asked)
    assert fetcher.steps_under_way == 50
    for item in made:
        assert len(fetcher.take(item.record).frames) == 10
    assert fetcher.steps_under_way == 0
    assert len(shelf.asked) == asked
    fetcher.close()


def test_what_has_room_is_asked_for_ahead_and_what_has_none_is_not() -> None:
    made = [make_episode(n, steps=10) for n in range(6)]
    shelf = Shelf(made)
    fetcher = PayloadFetcher(shelf, Patience(threading.Event()), ahead=4, ahead_steps=30)
    assert [fetcher.ask_while_room(item.record) for item in made] == [True] * 3 + [False] * 3
    assert [fetcher.ask_while_room(item.record) for item in made[:3]] == [True] * 3, "they are on their way"
    assert fetcher.steps_under_way == 30
    fetcher.take(made[0].record)
    assert fetcher.ask_while_room(made[3].record)
    assert fetcher.steps_under_way == 30
    fetcher.close()
