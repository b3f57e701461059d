"""Several ranks in one process, each on a thread of its own, and one that does all of their parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from infra.object_store import ObjectStore
from infra.settings import LearnerSettings, Settings
from learner import ranks
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.journal import Beginning
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.ranks import SharedFetcher, follow
from learner.rerun import begin, train_base
from learner.team import Team
from schemas.events import EpisodeSource, Feature
from tests.learner.seen import WRIST, Seen, see
from tests.learner.seen import Shelf as SeenShelf
from tests.learner.synthetic import FEATURES, Synthetic, make_episode
from tests.learner.test_cameras import loaded
from tests.learner.test_payloads import Shelf

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
