"""Several ranks train one policy: the same weights on each, and the same bits as one process doing all parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from infra.clock import ManualClock
from infra.health import Health
from infra.object_store import ObjectStore, sha256_hex
from infra.settings import LearnerSettings, Settings
from learner import ranks
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import BadPayload, UnfitEpisode
from learner.intake import Intake
from learner.journal import Beginning, Journal
from learner.patience import Patience, Stopped
from learner.payloads import PayloadFetcher
from learner.policies.artifact import unpack_json
from learner.ranks import SharedFetcher, _Follower, follow
from learner.replay import Batch, ReplayBuffer
from learner.rerun import begin, rerun, train_base
from learner.resume import Way, resume
from learner.set_aside import SetAside
from learner.team import Team
from schemas.events import EpisodeSource, Feature
from tests.learner import lives
from tests.learner.lives import Life, fetcher, restored
from tests.learner.seen import WRIST, Seen, see
from tests.learner.seen import Shelf as SeenShelf
from tests.learner.synthetic import FEATURES, Synthetic, make_episode, make_payload
from tests.learner.test_cameras import check, loaded, truth
from tests.learner.test_checkpoint import Bucket, version
from tests.learner.test_intake import Announcements
from tests.learner.test_payloads import Refusing, Shelf, told

BASE = LearnerSettings(
    hidden=(8,), batch_size=16, pretrain_steps=8, mixing="adaptive", adaptive_window=7, recap_value_steps=5
)


@dataclass(frozen=True)
class World:
    """What a policy meets, and how its episodes are read where they lie."""

    demonstrations: Sequence[Synthetic]
    fleet: Sequence[Synthetic]
    revised: Synthetic
    """Of the fleet's second episode."""
    features: tuple[Feature, ...]
    shelf: Callable[[Sequence[Synthetic]], ObjectStore]
    load: Callable[[Any], Episode]

    @property
    def made(self) -> list[Synthetic]:
        return [*self.demonstrations, *self.fleet, self.revised]


def world(make: Callable[..., Synthetic], *rest: Any) -> World:
    return World(
        [
            make(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=12)
            for n, task in enumerate(("lift", "push", "push"))
        ],
        [make(10 + n, steps=9 + n, human=(2, 6)) for n in range(6)],
        make(11, steps=20, human=(3, 9), revision=2),
        *rest,
    )


BLIND = world(make_episode, FEATURES, Shelf, lambda made: made.episode)
SEEING = world(partial(see, of_a_segment=5), (*FEATURES, WRIST), SeenShelf, loaded)
DEMONSTRATIONS, FLEET = BLIND.demonstrations, BLIND.fleet
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


def history(core: TrainingCore, take: Callable[[Synthetic], Episode], met: World) -> None:
    """What a learner does after its base: admissions, revisions, updates, and an episode that is lost."""
    for _ in range(5):
        core.update(online=True)
    for made in met.fleet[:4]:
        core.admit(take(made))
    for _ in range(9):
        core.update(online=True)
    core.admit(take(met.revised))
    core.forget(met.fleet[0].record.episode_id)
    for made in met.fleet[4:]:
        core.admit(take(made))
    for _ in range(9):
        core.update(online=True)


def live(
    settings: LearnerSettings, team: Team, take: Callable[[Synthetic], Episode] | None = None, met: World = BLIND
) -> TrainingCore:
    beginning = Beginning(features=met.features, fps=10.0)
    core = begin(settings, beginning, [met.load(made) for made in met.demonstrations], None, team)
    train_base(core, settings, lambda: core.update(online=False))
    history(core, take or met.load, met)
    return core


def together(
    count: int, settings: LearnerSettings, monkeypatch: pytest.MonkeyPatch, met: World = BLIND
) -> tuple[bytes, list[bytes]]:
    """The line with so many ranks, in threads: the first one's artifact, and what each follower ends with."""
    wire, cores = Threads(count), dict[int, TrainingCore]()
    shelves: list[Any] = [met.shelf(met.made) for _ in range(count)]

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
    first.team, first.cameras = wire.of(0), settings.cameras
    with ThreadPoolExecutor(count) as threads:
        followers = [
            threads.submit(follow, Settings(), wire.of(rank), threading.Event()) for rank in range(1, count)
        ]
        core = live(settings, first.team, lambda one: first.take(one.record), met)
        first.team.tell(END)
        for follower in followers:
            follower.result(60.0)
    first.close()
    for rank, shelf in enumerate(shelves):
        shard = [one for one in met.made if wire.of(rank).has(one.record.episode_id)]
        segments = [uri for one in shard if isinstance(one, Seen) for uri in one.segments]
        mine = {shelf.key(uri) for uri in (*(one.event.payload_uri for one in shard), *segments)}
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
    alone = live(settings, Team(3))
    assert alone.artifact() == first


def watch(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[Batch]]:
    """The part of each batch that a rank gets, from now on."""
    drawn: dict[int, list[Batch]] = {}
    sample = ReplayBuffer.sample

    def noted(self: ReplayBuffer, *arguments: Any) -> Batch:
        batch = sample(self, *arguments)
        kept = batch.only(np.arange(len(batch)))
        drawn.setdefault(self._team.rank, []).append(kept)
        return batch

    monkeypatch.setattr(ReplayBuffer, "sample", noted)
    return drawn


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap"])
def test_ranks_that_see_get_the_images_of_their_own_samples_and_the_same_weights(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"algorithm": algorithm, "architecture": "flow-transformer", "cameras": ("wrist",)}
    settings = LearnerSettings.model_validate(BASE.model_dump() | changes)
    drawn = watch(monkeypatch)
    first, others = together(3, settings, monkeypatch, SEEING)
    assert others == [first, first]
    monkeypatch.undo()
    whole = watch(monkeypatch)
    assert live(settings, Team(3), met=SEEING).artifact() == first
    monkeypatch.undo()

    seen = [made for made in SEEING.made if isinstance(made, Seen)]
    before = truth([made for made in seen if made.record.revision == 1])
    after = before | truth(seen[-1:])  # the revised one begins with the states of the one that it replaces
    revised_at = BASE.pretrain_steps + 14
    assert [len(drawn[rank]) for rank in range(3)] == [len(whole[0])] * 3
    for update, together_drawn in enumerate(whole[0]):
        check(together_drawn, after if update >= revised_at else before)
        assert together_drawn.ranks is not None
        for rank in range(3):
            part, wanted = drawn[rank][update], together_drawn.only(np.flatnonzero(together_drawn.ranks == rank))
            np.testing.assert_array_equal(part.states, wanted.states)
            np.testing.assert_array_equal(part.images["wrist"].images, wanted.images["wrist"].images)
            np.testing.assert_array_equal(part.images["wrist"].present, wanted.images["wrist"].present)
    for rank in range(3):
        present = np.concatenate([batch.images["wrist"].present for batch in drawn[rank]])
        assert 0 < present.sum() < len(present)


def test_with_one_rank_or_several_the_same_is_learned_but_for_rounding() -> None:
    one = live(BASE, Team())
    several = live(BASE, Team(4))
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


@pytest.mark.parametrize("before", [1, 3])
def test_a_line_goes_on_with_another_number_of_ranks_where_it_stands_though_versions_came_after_its_checkpoint(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(BASE, ranks=before)
    life.live([[(3, [0, 1]), (4, [5])], [(2, [2])], [(3, [3]), (2, [])]])
    journal = Journal(Bucket(), "default", Patience(threading.Event()))
    for segment in life.segments:
        journal.seal(segment)
    past = {
        one.version: version(one.version, one.sha256).model_copy(
            update={"parent_version": one.parent, "config": one.config}
        )
        for one in life.segments
    }
    wire, episodes = Threads(2), [*lives.DEMONSTRATIONS, *lives.FLEET]
    shelf = Shelf(episodes)
    monkeypatch.setattr(
        ranks,
        "make_fetcher",
        lambda _settings, _store, patience, _team: PayloadFetcher(shelf, patience, threads=1),
    )
    first = SharedFetcher(Shelf(episodes), Patience(threading.Event()), threads=1)
    first.team = wire.of(0)
    with ThreadPoolExecutor(1) as threads:
        follower = threads.submit(follow, Settings(), wire.of(1), threading.Event())
        begun = Checkpoint(past[2], *unpack_json(life.snapshots[1]), SetAside())
        asked: list[int] = []
        way = Way(BASE, past, journal, first, None, first.team, lambda: asked.append(1))
        resumed = resume(way, begun)
        assert resumed.at.version == 4
        assert resumed.core.team is first.team
        assert sha256_hex(resumed.core.artifact()) == life.segments[-1].sha256
        assert len(asked) == life.segments[-1].learner_step - life.segments[1].learner_step
        for _ in range(3):
            resumed.core.update(online=True)
        resumed.core.require_agreement()
        first.team.tell(END)
        follower.result(60.0)
    first.close()
    assert shelf.asked, "each has its share again"
    other = restored(BASE, life.snapshots[-1], Team(2))
    for _ in range(3):
        other.update(online=True)
    assert resumed.core.artifact() == other.artifact()


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


def test_shards_are_disjoint_and_cover_everything() -> None:
    teams = [Threads(4).of(rank) for rank in range(4)]
    ids = [make_episode(n).record.episode_id for n in range(400)]
    owners = [[team.rank for team in teams if team.has(one)] for one in ids]
    assert all(len(found) == 1 for found in owners)
    counts = np.bincount([found[0] for found in owners])
    assert counts.min() > 60
