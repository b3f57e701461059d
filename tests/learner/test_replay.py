from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.episode_index import EpisodeIndex
from learner.episodes import Episode, EpisodeRecord, Frames, runs_left
from learner.errors import UnknownTask
from learner.policies.base import PolicySpec
from learner.replay import ReplayBuffer
from learner.selection import Selection
from schemas.events import EpisodeSource
from tests.learner.synthetic import ACTION, FEATURES, STATE, make_episode

TASKS = ("lift", "push")
SPEC = PolicySpec(
    architecture="chunked-mlp",
    hidden=(8,),
    features=FEATURES,
    chunk=4,
    fps=10.0,
    tasks=TASKS,
    state_mean=(0.0,) * STATE,
    state_std=(1.0,) * STATE,
)


def marked(
    number: int, human: list[bool], *, task: str = "push", online: bool = True, gaps: tuple[int, ...] = ()
) -> Episode:
    """An episode whose vectors name it: state[0] = number, state[1] = index; the action has the same."""
    index = np.array([n for n in range(1000) if n not in gaps][: len(human)], np.int32)
    states = np.zeros((len(human), STATE), np.float32)
    actions = np.zeros((len(human), ACTION), np.float32)
    for vectors in (states, actions):
        vectors[:, 0], vectors[:, 1] = number, index
    source = EpisodeSource.ONLINE if online else EpisodeSource.DEMONSTRATION
    record = make_episode(number, task=task, source=source, steps=1).record
    record = record.model_copy(update={"step_count": len(human)})
    return Episode(record, Frames(index, np.array(human), states, actions, np.zeros(len(human), np.float32)))


def everything(episode: Episode) -> Selection:
    return Selection.of(np.ones(len(episode.frames), bool))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=20),
    st.sets(st.integers(0, 19), max_size=4),
    st.sets(st.integers(0, 19), max_size=4),
)
def test_runs_end_where_control_changes_or_a_step_is_missing_or_an_algorithm_says_so(
    human: list[bool], gaps: set[int], ended: set[int]
) -> None:
    frames = marked(1, human, gaps=tuple(sorted(gaps))).frames
    breaks = np.isin(np.arange(len(human)), sorted(ended)) if ended else None
    left = runs_left(frames, breaks)
    for start in range(len(frames)):
        count = 1
        while (
            start + count < len(frames)
            and frames.human[start + count] == frames.human[start]
            and frames.index[start + count] == frames.index[start] + count
            and start + count - 1 not in ended
        ):
            count += 1
        assert left[start] == count


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(st.booleans(), min_size=1, max_size=15), st.sampled_from(TASKS), st.booleans()),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 2**31),
)
def test_targets_are_the_actions_that_follow_under_the_same_control(
    episodes: list[tuple[list[bool], str, bool]], seed: int
) -> None:
    buffer = ReplayBuffer(SPEC, batch_size=32)
    added = {}
    for number, (human, task, online) in enumerate(episodes):
        episode = marked(number, human, task=task, online=online)
        buffer.add(episode, everything(episode))
        added[number] = episode
    batch = buffer.sample(np.random.default_rng(seed), np.full(2, 0.5))
    for row in range(len(batch)):
        episode = added[int(batch.states[row, 0])]
        at = int(batch.states[row, 1])
        run = int(runs_left(episode.frames)[at])
        valid = np.arange(SPEC.chunk) < run
        assert TASKS[batch.tasks[row]] == episode.record.task
        assert batch.online[row] == episode.record.online
        np.testing.assert_array_equal(batch.mask[row], valid.astype(np.float32))
        np.testing.assert_array_equal(
            batch.actions[row][valid], episode.frames.actions[at : at + int(valid.sum())]
        )
        assert not batch.actions[row][~valid].any()


def test_only_selected_frames_are_drawn() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=256)
    episode = marked(1, [False, True, True, False])
    assert buffer.add(episode, Selection.of(episode.frames.human)) == 2
    batch = buffer.sample(np.random.default_rng(0), np.ones(2))
    assert set(batch.states[:, 1]) == {1.0, 2.0}


def test_newer_revision_takes_the_place_of_the_older() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=256)
    older, newer = marked(1, [True] * 5), marked(1, [True] * 7)
    newer.frames.states[:, 2] = 9.0
    buffer.add(older, everything(older))
    buffer.add(newer, everything(newer))
    assert buffer.sizes().sum() == 7
    assert (buffer.sample(np.random.default_rng(0), np.ones(2)).states[:, 2] == 9.0).all()


def test_nothing_to_draw_is_an_error() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=4)
    with pytest.raises(ValueError, match="no frame"):
        buffer.sample(np.random.default_rng(0), np.ones(2))
    episode = marked(1, [False])
    buffer.add(episode, Selection.of(episode.frames.human))
    with pytest.raises(ValueError, match="no frame"):
        buffer.sample(np.random.default_rng(0), np.ones(2))


def test_task_that_the_policy_does_not_know_is_refused() -> None:
    with pytest.raises(UnknownTask):
        ReplayBuffer(SPEC, 4).add(marked(1, [True], task="juggle"), Selection.of(np.ones(1, bool)))


@pytest.mark.parametrize(
    ("online", "offline", "expected"), [(True, True, 0.3), (True, False, 1.0), (False, True, 0.0)]
)
def test_online_share_is_kept_and_an_empty_source_gives_way(online: bool, offline: bool, expected: float) -> None:
    buffer = ReplayBuffer(SPEC, batch_size=20_000)
    for number, (wanted, is_online) in enumerate(((online, True), (offline, False))):
        if wanted:
            episode = marked(number, [True] * (3 + 50 * number), online=is_online)
            buffer.add(episode, everything(episode))
    batch = buffer.sample(np.random.default_rng(0), np.full(2, 0.3))
    assert abs(batch.online.mean() - expected) < 0.02


def test_tasks_are_drawn_alike_however_much_data_each_has() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=20_000)
    for number, (task, steps) in enumerate((("lift", 200), ("push", 5))):
        episode = marked(number, [True] * steps, task=task)
        buffer.add(episode, everything(episode))
    batch = buffer.sample(np.random.default_rng(0), np.full(2, 0.5))
    assert abs((batch.tasks == 0).mean() - 0.5) < 0.02


def test_weighted_tasks_are_drawn_in_proportion_and_those_without_data_not_at_all() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=20_000)
    episode = marked(1, [True] * 20, task="lift")
    buffer.add(episode, everything(episode))
    random, weights = np.random.default_rng(0), np.array([1.0, 3.0])
    assert (buffer.sample(random, np.full(2, 0.5), weights).tasks == 0).all()
    np.testing.assert_array_equal(buffer.shares(np.full(2, 0.5)), [1.0, np.nan])
    episode = marked(2, [True] * 5, task="push")
    buffer.add(episode, everything(episode))
    assert abs((buffer.sample(random, np.full(2, 0.5), weights).tasks == 1).mean() - 0.75) < 0.02


def test_the_same_seed_draws_the_same_and_growing_does_not_disturb_what_is_there() -> None:
    buffers = [ReplayBuffer(SPEC, batch_size=64) for _ in range(2)]
    for buffer in buffers:
        for number in range(60):
            episode = marked(number, [True] * 100, online=number % 2 == 0)
            buffer.add(episode, everything(episode))
    one, other = (buffer.sample(np.random.default_rng(5), np.full(2, 0.5)) for buffer in buffers)
    for name in ("states", "tasks", "online", "actions", "mask", "weights", "advantages"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert set(one.states[:, 0]) <= set(range(60))


def test_record_of_an_evaluation_is_neither_online_nor_forgotten() -> None:
    record = EpisodeRecord.of(make_episode(1, source=EpisodeSource.EVALUATION).event)
    assert record.source is EpisodeSource.EVALUATION
    assert not record.online


def drawn(buffer: ReplayBuffer, size: int = 1) -> set[int]:
    """Numbers of the episodes that are drawn."""
    found: set[int] = set()
    random = np.random.default_rng(0)
    for _ in range(size):
        found |= {int(number) for number in buffer.sample(random, np.full(2, 0.5)).states[:, 0]}
    return found


def online_steps(held: dict[int, tuple[int, bool]]) -> int:
    return sum(steps for steps, is_online in held.values() if is_online)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 7), st.integers(1, 6), st.booleans(), st.booleans()), min_size=1, max_size=25
    ),
    st.integers(1, 15),
)
def test_the_oldest_online_episodes_leave_whole_when_the_limit_is_passed_and_demonstrations_stay(
    admissions: list[tuple[int, int, bool, bool]], limit: int
) -> None:
    buffer = ReplayBuffer(SPEC, batch_size=64, limit=limit)
    held: dict[int, tuple[int, bool]] = {}
    for revision, (number, steps, online, something) in enumerate(admissions):
        episode = marked(number, [True] * steps, online=online)
        record = episode.record.model_copy(update={"revision": revision})
        buffer.add(Episode(record, episode.frames), Selection.of(np.full(steps, something)))
        held.pop(number, None)
        held[number] = steps * something, online
        leaving = []
        for older, (_, is_online) in list(held.items()):
            if online_steps(held) > limit and is_online and older != number:
                leaving.append(older)
                del held[older]
        ids = [make_episode(older).record.episode_id for older in leaving]
        assert buffer.overflow() == ids
        assert buffer.online_steps == online_steps(held)
        assert buffer.sizes().sum() == sum(steps for steps, _ in held.values())
        ids = [make_episode(older).record.episode_id for older in held]
        assert [record.episode_id for record in buffer.index.held()] == ids
        with_something = {older for older, (steps, _) in held.items() if steps}
        if with_something:
            assert drawn(buffer) <= with_something


def test_demonstrations_do_not_count_so_that_however_many_there_are_online_data_keeps_its_room() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=64, limit=200)
    for number in range(11):
        episode = marked(number, [True] * 20, online=False)
        buffer.add(episode, everything(episode))
        assert buffer.overflow() == []
    for number in range(20, 40):
        episode = marked(number, [True] * 30)
        buffer.add(episode, everything(episode))
        buffer.overflow()
    assert buffer.sizes()[TASKS.index("push")].tolist() == [220, 180]
    assert drawn(buffer, 20) == {*range(11), *range(34, 40)}


def test_what_left_is_remembered_and_comes_back_only_with_a_newer_revision() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=64, limit=10)
    for number in range(3):
        episode = marked(number, [True] * 5)
        buffer.add(episode, everything(episode))
        buffer.overflow()
    assert drawn(buffer) == {1, 2}
    first = make_episode(0).record
    assert buffer.index[first.episode_id].revision == 1
    assert [record.episode_id for record in buffer.index.held()] == [
        make_episode(n).record.episode_id for n in (1, 2)
    ]
    newer = Episode(marked(0, [True] * 5).record.model_copy(update={"revision": 2}), marked(0, [True] * 5).frames)
    buffer.add(newer, everything(newer))
    assert buffer.overflow() == [make_episode(1).record.episode_id]
    assert drawn(buffer) == {0, 2}


def test_episodes_with_nothing_to_draw_leave_with_those_that_were_admitted_after_them() -> None:
    """A mostly autonomous fleet under HG-DAgger: one correction in ten episodes."""
    buffer = ReplayBuffer(SPEC, batch_size=64, limit=50)
    for number in range(200):
        episode = marked(number, [number % 10 == 0] * 10)
        buffer.add(episode, Selection.of(episode.frames.human))
        gone = buffer.overflow()
        assert not gone or number % 10 == 0
    assert drawn(buffer, 20) == {150, 160, 170, 180, 190}
    ids = [make_episode(number).record.episode_id for number in range(141, 200)]
    assert [record.episode_id for record in buffer.index.held()] == ids


def test_room_on_disk_is_bounded_by_the_limit_whatever_passes_through() -> None:
    buffer = ReplayBuffer(SPEC, batch_size=64, limit=1000)
    for number in range(300):
        episode = marked(number, [True] * 50)
        buffer.add(episode, everything(episode))
        buffer.overflow()
    row = 4 * (STATE + ACTION) + 16
    assert buffer.memory()["disk"] <= row * (1000 + 50)
    assert drawn(buffer, 20) == set(range(280, 300))


def test_a_buffer_that_is_filled_again_draws_the_same() -> None:
    """Rows of superseded revisions and of what left are elsewhere on disk then; nobody can tell."""
    made = []
    for place in range(40):
        episode = marked(
            place % 25, [step % 3 > 0 for step in range(30)], task=TASKS[place % 2], online=place % 3 > 0
        )
        record = episode.record.model_copy(update={"revision": place})
        made.append(Episode(record, episode.frames))
    first = ReplayBuffer(SPEC, batch_size=64, limit=500)
    for episode in made:
        first.add(episode, Selection.of(episode.frames.human))
        first.overflow()
    again = ReplayBuffer(SPEC, batch_size=64, limit=500, index=EpisodeIndex.load(*first.index.dump()))
    by_uri = {(episode.record.episode_id, episode.record.revision): episode for episode in made}
    for record in again.index.held():
        episode = by_uri[record.episode_id, record.revision]
        again.add(episode, Selection.of(episode.frames.human))
        assert again.overflow() == []
    for seed in range(20):
        one, other = (b.sample(np.random.default_rng(seed), np.full(2, 0.4)) for b in (first, again))
        for name in ("states", "tasks", "online", "actions", "mask", "weights", "advantages"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert first.draws.take() != ()
    assert len(again.draws.take()) == len(list(again.index.held()))


def test_a_buffer_that_is_filled_again_below_a_lower_limit_keeps_the_demonstrations_and_the_newest() -> None:
    made = [marked(number, [True] * 10, online=number > 3) for number in range(9)]
    first = ReplayBuffer(SPEC, batch_size=64)
    for episode in made:
        first.add(episode, everything(episode))
    for limit, left in ((5, [4, 5, 6, 7]), (20, [4, 5, 6]), (50, [])):
        again = ReplayBuffer(SPEC, batch_size=64, limit=limit, index=EpisodeIndex.load(*first.index.dump()))
        gone = []
        for episode in made:
            again.add(episode, everything(episode))
            gone += again.overflow()
        assert gone == [made[number].record.episode_id for number in left]
        assert again.online_steps == 50 - 10 * len(left)
        assert again.sizes().sum() == 90 - 10 * len(left)


def test_a_place_finds_its_episode_among_very_short_and_very_long_ones() -> None:
    """Each frame that may be drawn is, and belongs to the episode that was counted."""
    buffer, random = ReplayBuffer(SPEC, batch_size=64), np.random.default_rng(3)
    lengths = [900, *[1] * 80, 700, *random.integers(1, 40, 60).tolist(), *[1] * 80]
    for number, length in enumerate(lengths):
        episode = marked(number, [True] * int(length))
        buffer.add(episode, everything(episode))
    seen: dict[int, int] = {}
    for _ in range(900):
        for number in buffer.sample(random, np.ones(2)).states[:, 0].astype(int).tolist():
            seen[number] = seen.get(number, 0) + 1
    assert set(seen) == set(range(len(lengths)))
    ids = {make_episode(number, steps=1).record.episode_id: number for number in range(len(lengths))}
    assert {ids[told.episode_id]: told.draws for told in buffer.draws.take()} == seen


@settings(deadline=None)
@given(lengths=st.lists(st.sampled_from([1, 2, 7, 40, 300]), min_size=1, max_size=30), seed=st.integers(0, 9))
def test_a_place_finds_its_episode_whatever_the_lengths(lengths: list[int], seed: int) -> None:
    buffer, random = ReplayBuffer(SPEC, batch_size=256), np.random.default_rng(seed)
    for number, length in enumerate(lengths):
        episode = marked(number, [True] * length)
        buffer.add(episode, everything(episode))
    seen = np.bincount(buffer.sample(random, np.ones(2)).states[:, 0].astype(int))
    ids = {make_episode(number, steps=1).record.episode_id: number for number in range(len(lengths))}
    found = {ids[told.episode_id]: told.draws for told in buffer.draws.take()}
    assert found == {number: draws for number, draws in enumerate(seen.tolist()) if draws}
