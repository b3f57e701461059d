from __future__ import annotations

import threading

import pytest

from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.object_store import ObjectStore
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
