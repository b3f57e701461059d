"""Several ranks train one policy: the same weights on each, and the same bits as one process doing all parts."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from infra.object_store import sha256_hex
from infra.settings import LearnerSettings, Settings
from learner import ranks
from learner.checkpoint import Checkpoint
from learner.core import TrainingCore
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.policies.artifact import unpack_json
from learner.ranks import SharedFetcher, follow
from learner.replay import Batch, ReplayBuffer
from learner.rerun import rerun
from learner.resume import Way, resume
from learner.set_aside import SetAside
from learner.team import Team
from tests.learner import lives
from tests.learner.lives import Life, fetcher, restored, sealed
from tests.learner.seen import Seen
from tests.learner.synthetic import make_episode
from tests.learner.test_cameras import check, truth
from tests.learner.test_payloads import Shelf
from tests.learner.together import BASE, END, SEEING, Threads, live, together


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
    past, journal = sealed(life)
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


def test_shards_are_disjoint_and_cover_everything() -> None:
    teams = [Threads(4).of(rank) for rank in range(4)]
    ids = [make_episode(n).record.episode_id for n in range(400)]
    owners = [[team.rank for team in teams if team.has(one)] for one in ids]
    assert all(len(found) == 1 for found in owners)
    counts = np.bincount([found[0] for found in owners])
    assert counts.min() > 60
