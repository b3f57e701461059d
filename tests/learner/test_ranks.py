"""Several ranks train one policy: the same weights on each, and the same bits as one process doing all parts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.object_store import sha256_hex
from infra.settings import LearnerSettings, Settings
from learner import ranks
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import BadPayload, UnfitEpisode
from learner.intake import Intake
from learner.journal import Beginning
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.ranks import SharedFetcher, _Follower, follow
from learner.rerun import begin, rerun, train_base
from learner.team import Team
from schemas.events import EpisodeSource, Feature
from tests.learner.lives import Life, fetcher, restored
from tests.learner.synthetic import FEATURES, Synthetic, make_episode, make_payload
from tests.learner.test_intake import Announcements
from tests.learner.test_payloads import Shelf

BASE = LearnerSettings(
    hidden=(8,), batch_size=16, pretrain_steps=8, mixing="adaptive", adaptive_window=7, recap_value_steps=5
)
DEMONSTRATIONS = [
    make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=12)
    for n, task in enumerate(("lift", "push", "push"))
]
FLEET = [make_episode(10 + n, steps=9 + n, human=(2, 6)) for n in range(6)]
REVISED = make_episode(11, steps=20, human=(3, 9), revision=2)
END = b'{"do": "end"}'


class Threads:
    """A wire between threads, in the place of torch.distributed's between processes. Implements `Wire`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = threading.Barrier(count, timeout=60.0)
        self.places: list[bytes | None] = [None] * count

    def of(self, rank: int) -> Team:
        return Team(self.count, rank=rank, wire=_End(self, rank))


class _End:
    def __init__(self, threads: Threads, rank: int) -> None:
        self._threads, self._rank = threads, rank

    def gather(self, data: bytes) -> list[bytes]:
        threads = self._threads
        threads.places[self._rank] = data
        threads.barrier.wait()
        found = [place or b"" for place in threads.places]
        threads.barrier.wait()
        return found

    def broadcast(self, data: bytes | None, rank: int) -> bytes:
        return self.gather(data or b"")[rank]


def history(core: TrainingCore, take: Callable[[Synthetic], Episode]) -> None:
    """What a learner does after its base: admissions, revisions, updates, and an episode that is lost."""
    for _ in range(5):
        core.update(online=True)
    for made in FLEET[:4]:
        core.admit(take(made))
    for _ in range(9):
        core.update(online=True)
    core.admit(take(REVISED))
    core.forget(FLEET[0].record.episode_id)
    for made in FLEET[4:]:
        core.admit(take(made))
    for _ in range(9):
        core.update(online=True)


def live(settings: LearnerSettings, team: Team, take: Callable[[Synthetic], Episode]) -> TrainingCore:
    beginning = Beginning(features=FEATURES, fps=10.0)
    core = begin(settings, beginning, [made.episode for made in DEMONSTRATIONS], None, team)
    train_base(core, settings, lambda: core.update(online=False))
    history(core, take)
    return core


def together(count: int, settings: LearnerSettings, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[bytes]]:
    """The line with so many ranks, in threads: the first one's artifact, and what each follower ends with."""
    wire, cores = Threads(count), dict[int, TrainingCore]()
    made = [*DEMONSTRATIONS, *FLEET, REVISED]
    shelves = [Shelf(made) for _ in range(count)]

    def fetch(_settings: Settings, _store: object, patience: Patience, team: Team) -> PayloadFetcher:
        return PayloadFetcher(shelves[team.rank], patience, threads=1)

    restore: Any = TrainingCore.restore.__func__  # type: ignore[attr-defined]

    def noted(cls: type[TrainingCore], *arguments: Any, **named: Any) -> TrainingCore:
        core: TrainingCore = restore(cls, *arguments, **named)
        if not core.team.leads:
            cores[core.team.rank] = core
        return core

    monkeypatch.setattr(ranks, "make_fetcher", fetch)
    monkeypatch.setattr(TrainingCore, "restore", classmethod(noted))
    first = SharedFetcher(shelves[0], Patience(threading.Event()), threads=1)
    first.team = wire.of(0)
    with ThreadPoolExecutor(count) as threads:
        followers = [
            threads.submit(follow, Settings(), wire.of(rank), threading.Event()) for rank in range(1, count)
        ]
        core = live(settings, first.team, lambda one: first.take(one.record))
        first.team.tell(END)
        for follower in followers:
            follower.result(60.0)
    first.close()
    for rank, shelf in enumerate(shelves):
        mine = {shelf.key(one.event.payload_uri) for one in made if wire.of(rank).has(one.record.episode_id)}
        assert set(shelf.asked) <= mine, "a rank reads its shard and nothing else"
    assert any(shelf.asked for shelf in shelves[1:])
    return core.artifact(), [cores[rank].artifact() for rank in range(1, count)]


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap", "bc"])
@pytest.mark.parametrize("architecture", ["chunked-mlp", "flow-transformer"])
def test_all_ranks_have_the_same_weights_and_one_process_that_does_all_parts_has_them_too(
    algorithm: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"algorithm": algorithm, "architecture": architecture}
    settings = LearnerSettings.model_validate(BASE.model_dump() | changes)
    first, others = together(3, settings, monkeypatch)
    assert others == [first, first]
    monkeypatch.undo()
    alone = live(settings, Team(3), lambda made: made.episode)
    assert alone.artifact() == first


def test_with_one_rank_or_several_the_same_is_learned_but_for_rounding() -> None:
    one = live(BASE, Team(), lambda made: made.episode)
    several = live(BASE, Team(4), lambda made: made.episode)
    assert one.random.bit_generator.state == several.random.bit_generator.state
    assert one.take_draws() == several.take_draws()
    for name, weights in one.algorithm.weights().items():
        np.testing.assert_allclose(several.algorithm.weights()[name], weights, atol=1e-5)


def test_a_line_of_several_ranks_goes_on_from_a_snapshot_with_the_same_bits() -> None:
    life = Life(BASE, ranks=2)
    life.live([[(3, [0, 1]), (4, [5])], [(2, [2])]])
    core = restored(BASE, life.snapshots[0], Team(2))
    payloads = fetcher()
    for segment in life.segments[1:]:
        core = rerun(core, segment, payloads)
        assert core.team.ranks == 2
    again: TrainingCore | None = None
    for segment in life.segments:
        again = rerun(again, segment, payloads)
    payloads.close()
    assert again is not None
    assert core.artifact() == again.artifact()
    assert sha256_hex(core.artifact()) == life.segments[-1].sha256


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


def test_shards_are_disjoint_and_cover_everything() -> None:
    teams = [Threads(4).of(rank) for rank in range(4)]
    ids = [make_episode(n).record.episode_id for n in range(400)]
    owners = [[team.rank for team in teams if team.has(one)] for one in ids]
    assert all(len(found) == 1 for found in owners)
    counts = np.bincount([found[0] for found in owners])
    assert counts.min() > 60
