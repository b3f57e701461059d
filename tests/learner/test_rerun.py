"""The same decisions after the same updates: the same batches, losses and versions, bit for bit."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.object_store import sha256_hex
from learner.cache import PayloadCache
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import JournalMissing, PayloadGone
from learner.frames import Room
from learner.journal import Beginning, Segment
from learner.patience import Patience, Stopped
from learner.payloads import PayloadFetcher
from learner.policies.artifact import pack_json
from learner.rerun import begin, readings, rerun, train_base
from tests.learner.lives import (
    BASE,
    DEMONSTRATIONS,
    FLEET,
    Life,
    Trace,
    fetcher,
    restored,
    shares_follow_the_losses_soon,
)
from tests.learner.synthetic import FEATURES
from tests.learner.test_payloads import Shelf

pytestmark = pytest.mark.usefixtures(shares_follow_the_losses_soon.__name__)

PLANS = st.lists(
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(st.integers(0, len(FLEET) - 1), max_size=3, unique=True)), max_size=3
    ),
    min_size=1,
    max_size=3,
)


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap"])
def test_a_line_trained_again_from_its_journal_draws_loses_and_publishes_the_same(algorithm: str) -> None:
    @settings(max_examples=12, deadline=None)
    @given(PLANS)
    def check(plan: list[list[tuple[int, list[int]]]]) -> None:
        life = Life(BASE.model_copy(update={"algorithm": algorithm}))
        life.live(plan)
        payloads = fetcher()
        core: TrainingCore | None = None
        for segment in life.segments:
            core = rerun(core, segment, payloads)
            assert sha256_hex(core.artifact()) == segment.sha256
        payloads.close()
        assert core is not None
        assert pack_json(*core.snapshot()) == life.snapshots[-1]

    check()


@settings(max_examples=20, deadline=None)
@given(PLANS, st.data())
def test_a_learner_killed_anywhere_goes_on_with_the_same_batches_losses_and_versions(
    plan: list[list[tuple[int, list[int]]]], data: st.DataObject
) -> None:
    life = Life(BASE)
    life.live(plan)
    killed_after = data.draw(st.integers(0, len(life.segments) - 2))
    core = restored(BASE, life.snapshots[killed_after])
    trace, payloads = Trace(), fetcher()
    trace.listen(core)
    for segment in life.segments[killed_after + 1 :]:
        core = rerun(core, segment, payloads)
        assert sha256_hex(core.artifact()) == segment.sha256
    payloads.close()
    first = life.segments[killed_after].learner_step
    assert trace.steps == {step: bits for step, bits in life.trace.steps.items() if step > first}


def test_a_line_that_begins_with_what_a_fleet_did_trains_on_only_for_what_the_fleet_brings_then() -> None:
    begun_with = [made.episode for made in (*DEMONSTRATIONS, FLEET[0])]
    core = begin(BASE, Beginning(features=FEATURES, fps=10.0), begun_with)
    train_base(core, BASE, lambda: core.update(online=False))
    assert core.updates_allowed() == 0
    core.admit(FLEET[1].episode)
    assert core.updates_allowed() == FLEET[1].record.step_count * BASE.max_updates_per_online_step


def until(segment: Segment, entries: int, learner_step: int) -> Segment:
    """The begin of a version: so many decisions, and updates up to that step."""
    return segment.model_copy(update={"entries": segment.entries[:entries], "learner_step": learner_step})


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap"])
def test_a_learner_killed_between_two_versions_goes_on_from_its_journal_or_from_a_snapshot_of_that_moment(
    algorithm: str,
) -> None:
    config = BASE.model_copy(update={"algorithm": algorithm, "hg_autonomous_weight": 0.5, "buffer_steps": 21})

    @settings(max_examples=15, deadline=None)
    @given(PLANS, st.data())
    def check(plan: list[list[tuple[int, list[int]]]], data: st.DataObject) -> None:
        life = Life(config)
        life.live(plan)
        number = data.draw(st.integers(1, len(life.segments) - 1))
        before, segment = life.segments[number - 1], life.segments[number]
        decided = data.draw(st.integers(0, len(segment.entries)))
        steps = [before.learner_step, *(entry.learner_step for entry in segment.entries), segment.learner_step]
        killed_at = data.draw(st.integers(steps[decided], steps[decided + 1]))
        payloads = fetcher()
        killed = rerun(restored(config, life.snapshots[number - 1]), until(segment, decided, killed_at), payloads)
        by_journal = restored(config, life.snapshots[number - 1])
        by_snapshot = restored(config, pack_json(*killed.snapshot()))
        for core, first in ((by_journal, before.learner_step), (by_snapshot, killed_at)):
            trace = Trace()
            trace.listen(core)
            entries = segment.entries
            if core is by_journal:
                core = rerun(core, until(segment, decided, steps[decided]), payloads)  # noqa: PLW2901
            rest = segment.model_copy(update={"entries": entries[decided:]})
            assert sha256_hex(rerun(core, rest, payloads).artifact()) == segment.sha256
            assert trace.steps == {
                step: bits for step, bits in life.trace.steps.items() if first < step <= segment.learner_step
            }
        payloads.close()

    check()


class Killed(Exception):
    """Where a test says so."""


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap"])
@pytest.mark.parametrize("updates", [1, 3, 5])
def test_a_base_whose_training_was_interrupted_goes_on_with_the_same_bits(algorithm: str, updates: int) -> None:
    config = BASE.model_copy(update={"algorithm": algorithm})
    life = Life(config)
    life.live([])
    core = begin(config, Beginning(features=FEATURES, fps=10.0), [made.episode for made in DEMONSTRATIONS])

    def update() -> None:
        if core.learner_step == updates:
            raise Killed
        core.update(online=False)

    with contextlib.suppress(Killed):
        train_base(core, config, update)
    again = restored(config, pack_json(*core.snapshot()))
    train_base(again, config, lambda: again.update(online=False))
    assert sha256_hex(again.artifact()) == life.segments[0].sha256


class Slow(Shelf):
    """Answers when it likes."""

    def get(self, key: str) -> bytes:
        time.sleep(random.Random(len(self.asked)).choice((0.0, 0.0, 0.004, 0.02)))
        return super().get(key)


def test_batches_are_the_same_from_the_store_or_the_disk_however_slow(tmp_path: Path) -> None:
    life = Life(BASE)
    life.live([[(2, [0, 1, 2]), (3, [4, 3]), (1, [5, 6])], [(2, [7])]])
    shelf = Slow([*DEMONSTRATIONS, *FLEET])
    bounds = (0, 10**6, 10**6, 5_000)  # no cache, an empty one, a full one, one that holds two payloads
    for bound in bounds:
        cache = PayloadCache(tmp_path / str(bound), bound) if bound else None
        payloads = PayloadFetcher(shelf, Patience(threading.Event()), cache=cache, threads=4, ahead_steps=30)
        trace, core = Trace(), restored(BASE, life.snapshots[0])
        trace.listen(core)
        for segment in life.segments[1:]:
            core = rerun(core, segment, payloads, Room(tmp_path))
        payloads.close()
        assert core.artifact() == restored(BASE, life.snapshots[-1]).artifact()
        first = life.segments[0].learner_step
        assert trace.steps == {step: bits for step, bits in life.trace.steps.items() if step > first}
    assert len(shelf.asked) > 0


def test_what_left_the_buffer_leaves_at_the_same_update_again() -> None:
    life = Life(BASE.model_copy(update={"buffer_steps": 36}))
    life.live([[(2, [0, 1, 2]), (3, [3])], [(2, [4, 5]), (4, [])]])
    payloads = fetcher()
    core = restored(life.config, life.snapshots[0])
    for segment in life.segments[1:]:
        core = rerun(core, segment, payloads)
        assert sha256_hex(core.artifact()) == segment.sha256
    payloads.close()
    left = set(core.episodes) - {record.episode_id for record in core.episodes.held()}
    assert left, "nothing left: the test shows nothing"
    assert sum(record.step_count for record in core.episodes.held() if record.online) <= 36


def test_another_decision_makes_another_version() -> None:
    life = Life(BASE)
    life.live([[(2, [0, 1]), (30, [])]])
    segment = life.segments[1]
    entry, last = segment.entries
    changed = (
        entry.model_copy(update={"admitted": entry.admitted[::-1]}),
        entry.model_copy(update={"admitted": entry.admitted[:1]}),
        entry.model_copy(update={"learner_step": entry.learner_step - 2}),
    )
    for other in changed:
        core = restored(BASE, life.snapshots[0])
        payloads = fetcher()
        core = rerun(core, segment.model_copy(update={"entries": (other, last)}), payloads)
        payloads.close()
        assert sha256_hex(core.artifact()) != segment.sha256


def test_what_cannot_be_read_any_more_is_said() -> None:
    life = Life(BASE)
    life.live([[(2, [0, 1])]])
    payloads = fetcher([*DEMONSTRATIONS, *FLEET[1:]])
    core = rerun(None, life.segments[0], payloads)
    with pytest.raises(PayloadGone, match=FLEET[0].record.episode_id):
        rerun(core, life.segments[1], payloads)
    with pytest.raises(JournalMissing, match="began with"):
        rerun(None, life.segments[1], payloads)
    payloads.close()


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap", "bc"])
@pytest.mark.parametrize("architecture", ["chunked-mlp", "flow-transformer"])
def test_it_is_known_beforehand_how_often_a_beginning_reads_each_demonstration(
    algorithm: str, architecture: str
) -> None:
    class Read(list[Episode]):
        times = 0

        def __iter__(self) -> Iterator[Episode]:
            for episode in super().__iter__():
                self.times += 1
                yield episode

    config = BASE.model_copy(update={"algorithm": algorithm, "architecture": architecture})
    episodes, heard = Read(made.episode for made in DEMONSTRATIONS), list[tuple[int, int]]()
    begin(
        config, Beginning(features=FEATURES, fps=10.0), episodes, fitting=lambda *told: heard.append(told)
    ).close()
    assert episodes.times == readings(config) * len(DEMONSTRATIONS)
    assert heard == ([(step, 5) for step in range(1, 6)] if algorithm == "recap" else [])


@pytest.mark.parametrize(("algorithm", "fitting"), [("hg-dagger", 0), ("recap", 5)])
def test_before_each_update_one_is_asked_whether_to_go_on_and_a_stop_is_heard_there(
    algorithm: str, fitting: int
) -> None:
    """Updates of RECAP's value function count as well."""
    config = BASE.model_copy(update={"algorithm": algorithm})
    life = Life(config)
    life.live([[(2, [0, 1]), (3, [])]])
    payloads, asked = fetcher(), list[int]()
    core: TrainingCore | None = None
    for segment in life.segments:
        core = rerun(core, segment, payloads, check=lambda: asked.append(1))
    assert core is not None
    assert len(asked) - fitting == core.learner_step == life.segments[-1].learner_step

    def stop_after(updates: int) -> Callable[[], None]:
        left = iter(range(updates))

        def check() -> None:
            if next(left, None) is None:
                raise Stopped

        return check

    with pytest.raises(Stopped):
        rerun(None, life.segments[0], payloads, check=stop_after(2))
    core = restored(config, life.snapshots[0])
    with pytest.raises(Stopped):
        rerun(core, life.segments[1], payloads, check=stop_after(3))
    payloads.close()
    assert core.learner_step == life.segments[0].learner_step + 3
