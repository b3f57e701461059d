"""Payloads that lie with another rank: bad ones, those that are waited for, and those that nobody takes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.health import Health
from infra.object_store import sha256_hex
from infra.settings import Settings
from learner import ranks
from learner.errors import BadPayload, PayloadGone, UnfitEpisode
from learner.intake import Intake
from learner.journal import Beginning
from learner.patience import Patience, Stopped
from learner.payloads import PayloadFetcher
from learner.ranks import SharedFetcher, _Follower, follow
from learner.rerun import begin
from schemas.events import Feature
from tests.learner.synthetic import FEATURES, Synthetic, make_payload
from tests.learner.test_intake import Announcements
from tests.learner.test_payloads import Refusing, Shelf, told
from tests.learner.together import BASE, BLIND, END, Threads

DEMONSTRATIONS, FLEET = BLIND.demonstrations, BLIND.fleet


def test_a_bad_payload_that_lies_elsewhere_is_bad_here(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Threads(2)
    elsewhere = next(made for made in FLEET if not wire.of(0).has(made.record.episode_id))
    monkeypatch.setattr(
        ranks,
        "make_fetcher",
        lambda _settings, _store, patience, _team: PayloadFetcher(Shelf([]), patience, threads=1),
    )
    first = SharedFetcher(Shelf([elsewhere]), Patience(threading.Event()), threads=1)
    first.team = wire.of(0)
    with ThreadPoolExecutor(1) as threads:
        follower = threads.submit(follow, Settings(), wire.of(1), threading.Event())
        first.prefetch(elsewhere.record)
        with pytest.raises(BadPayload, match=elsewhere.record.episode_id):
            first.take(elsewhere.record)
        first.team.tell(END)
        follower.result(60.0)
    first.close()


def test_what_is_read_alone_for_a_while_is_shared_again_however_that_ends() -> None:
    shared = SharedFetcher(Shelf([]), Patience(threading.Event()), threads=1)

    def broken_off() -> None:
        with shared.taken_whole():
            assert shared.whole
            raise PayloadGone("in the middle")

    with pytest.raises(PayloadGone):
        broken_off()
    with shared.taken_whole(False):
        assert not shared.whole
    shared.close()


def test_what_another_rank_waits_for_is_named_here_and_a_stop_is_heard_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wire = Threads(2)
    refused, good = [made for made in FLEET if not wire.of(0).has(made.record.episode_id)][:2]
    shelf = Refusing([refused, good])
    shelf.refused = shelf.key(refused.event.payload_uri)
    monkeypatch.setattr(ranks, "_ANSWER_SECONDS", 0.01)
    monkeypatch.setattr(
        ranks,
        "make_fetcher",
        lambda _settings, _store, patience, _team: PayloadFetcher(shelf, patience, threads=2),
    )
    stop, health = threading.Event(), Health(ManualClock())
    first = SharedFetcher(Shelf([]), Patience(stop, health), threads=1)
    first.team = wire.of(0)
    with ThreadPoolExecutor(2) as threads:
        follower = threads.submit(follow, Settings(), wire.of(1), threading.Event())
        taken = threads.submit(first.take, refused.record)
        told(health, (False, f"{refused.event.payload_uri}: 403"))
        shelf.refused = None
        assert taken.result(60.0).record == refused.record
        told(health, (True, "ready"))
        first.take(good.record)
        shelf.refused = shelf.key(refused.event.payload_uri)
        taken = threads.submit(first.take, refused.record)
        told(health, (False, f"{refused.event.payload_uri}: 403"))
        stop.set()
        with pytest.raises(Stopped):
            taken.result(60.0)
        first.team.tell(END)
        follower.result(60.0)
    first.close()


def test_what_the_first_rank_refuses_the_others_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """An altered announcement, and an absurd reading, of episodes that lie elsewhere."""
    wire = Threads(2)
    theirs = [made for made in FLEET if not wire.of(0).has(made.record.episode_id)]
    assert len(theirs) >= 2
    absurd, altered = theirs[0], theirs[1]
    states = absurd.episode.frames.states * np.float32(1e9)
    payload = make_payload(states, absurd.episode.frames.actions, ["HUMAN"] * len(states))
    update = {"payload_sha256": sha256_hex(payload)}
    absurd = Synthetic(absurd.event.model_copy(update=update), payload)
    altered = Synthetic(
        altered.event.model_copy(update={"features": (Feature(name="state", shape=(9,)), FEATURES[1])}),
        altered.payload,
    )
    made = [*DEMONSTRATIONS, absurd, altered]
    held: list[_Follower] = []
    make: Any = _Follower.__init__

    def noted(self: _Follower, *arguments: Any) -> None:
        make(self, *arguments)
        held.append(self)

    monkeypatch.setattr(_Follower, "__init__", noted)
    monkeypatch.setattr(
        ranks,
        "make_fetcher",
        lambda _settings, _store, patience, _team: PayloadFetcher(Shelf(made), patience, threads=1),
    )
    first = SharedFetcher(Shelf(made), Patience(threading.Event()), threads=1)
    first.team = wire.of(0)
    intake = Intake(Announcements([absurd, altered]), first, ManualClock())
    with ThreadPoolExecutor(1) as threads:
        follower = threads.submit(follow, Settings(), wire.of(1), threading.Event())
        beginning = Beginning(features=FEATURES, fps=10.0)
        core = begin(BASE, beginning, [one.episode for one in DEMONSTRATIONS], None, first.team)
        intake.poll(0.0)
        one, other = intake.waiting.values()
        episode = intake.take(one)
        assert episode is not None
        with pytest.raises(UnfitEpisode, match="standard deviations") as refused:
            core.require_plausible(episode)
        assert list(held[0]._taken) == [absurd.record.episode_id]
        intake.reject(one, refused.value)
        assert intake.take(other) is None, "its vectors are not as announced"
        first.team.tell(END)
        follower.result(60.0)
    first.close()
    assert held[0]._taken == {}
    assert len(intake.set_aside) == 2
