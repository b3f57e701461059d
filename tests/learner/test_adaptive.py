from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.settings import LearnerSettings
from learner.adaptive import MIN_SAMPLES, AdaptiveMixing, online_share
from learner.core import make_sampler, task_weights
from learner.replay import ReplayBuffer
from learner.sampler import OFFLINE, ONLINE, GroupLosses
from tests.learner.test_replay import SPEC, everything, marked

LOSSES = st.floats(0.0, 50.0)


def mixing(tasks: int = 2, window: int = 20, *, normalise: bool = False, start: float = 0.5) -> AdaptiveMixing:
    return AdaptiveMixing(
        tasks, alpha=1.5, window=window, floor=0.2, ceiling=0.8, start=start, normalise=normalise
    )


def step(online: list[float], offline: list[float], draws: int = MIN_SAMPLES) -> GroupLosses:
    """One learner step's losses: `draws` samples of each task and source, all with that loss."""
    losses = np.array([offline, online]).T
    return GroupLosses(np.full(losses.shape, draws, np.int64), losses * draws)


@given(LOSSES, LOSSES, st.floats(0.1, 3.0))
def test_share_is_the_papers_formula_and_its_closed_form(online: float, offline: float, alpha: float) -> None:
    share = float(online_share(np.array([online]), np.array([offline]), alpha)[0])
    papers = math.exp(alpha * online) / (math.exp(alpha * online) + math.exp(offline))
    closed = 1.0 / (1.0 + math.exp(-(alpha * online - offline)))
    assert share == pytest.approx(papers, abs=1e-12)
    assert share == pytest.approx(closed, abs=1e-12)


def test_losses_beyond_every_bound_do_not_overflow() -> None:
    assert online_share(np.array([1e6, 0.0]), np.array([0.0, 1e6]), 1.5).tolist() == [1.0, 0.0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LOSSES, LOSSES, st.integers(0, 300)), max_size=30), st.booleans())
def test_shares_stay_inside_the_clip_whatever_the_losses(
    history: list[tuple[float, float, int]], normalise: bool
) -> None:
    sampler = mixing(tasks=1, normalise=normalise)
    for online, offline, draws in history:
        sampler.observe(step([online], [offline], draws))
        assert 0.2 <= sampler.online_shares()[0] <= 0.8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LOSSES, LOSSES, st.integers(1, 300)), min_size=1, max_size=50), st.integers(1, 20))
def test_only_the_last_window_counts_sample_by_sample(
    history: list[tuple[float, float, int]], window: int
) -> None:
    sampler = mixing(tasks=1, window=window)
    for online, offline, draws in history:
        sampler.observe(step([online], [offline], draws))
    recent = history[-window:]
    samples = [draws for *_, draws in recent]
    means = [np.average([entry[place] for entry in recent], weights=samples) for place in (0, 1)]
    share = 1.0 / (1.0 + math.exp(-(1.5 * means[0] - means[1])))
    enough = MIN_SAMPLES if len(history) < window else min(MIN_SAMPLES, 0.2 * sum(samples))
    expected = min(max(share, 0.2), 0.8) if sum(samples) >= enough else 0.5
    assert sampler.online_shares()[0] == pytest.approx(expected, abs=1e-9)


@given(st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(0.0, 2.0), st.floats(0.0, 2.0))
def test_shares_converge_to_the_target_once_the_losses_hold_still(
    was_online: float, was_offline: float, online: float, offline: float
) -> None:
    sampler = mixing(tasks=1, window=10)
    for _ in range(10):
        sampler.observe(step([was_online], [was_offline]))
    target = float(np.clip(online_share(np.array([online]), np.array([offline]), 1.5)[0], 0.2, 0.8))
    distances = [abs(sampler.online_shares()[0] - target)]
    for _ in range(10):
        sampler.observe(step([online], [offline]))
        distances.append(abs(sampler.online_shares()[0] - target))
    assert distances[-1] < 1e-9
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(distances))


def test_tasks_do_not_see_one_another() -> None:
    sampler = mixing()
    sampler.observe(step([1.0, 0.1], [0.1, 1.0]))
    first, second = sampler.online_shares()
    assert first > 0.7
    assert second == pytest.approx(1.0 / (1.0 + math.exp(-(0.15 - 1.0))))


def test_until_both_sources_were_seen_often_enough_the_start_holds_clipped() -> None:
    for start, expected in ((0.6, 0.6), (0.05, 0.2), (1.0, 0.8)):
        sampler = mixing(start=start)
        assert sampler.online_shares().tolist() == [expected] * 2
        only_offline = step([0.0, 0.0], [5.0, 5.0])
        only_offline.draws[:, ONLINE] = 0
        sampler.observe(only_offline)
        assert sampler.online_shares().tolist() == [expected] * 2
    sampler.observe(step([0.0, 0.0], [5.0, 5.0], MIN_SAMPLES - 1))
    assert sampler.online_shares().tolist() == [0.8] * 2
    sampler.observe(step([0.0, 0.0], [5.0, 5.0], 1))
    assert sampler.online_shares().tolist() == [0.2] * 2


@pytest.mark.parametrize(("batch", "window", "tasks"), [(64, 20, 4), (64, 200, 25), (32, 200, 40), (256, 200, 4)])
def test_small_batches_and_windows_find_the_share_too_and_keep_it(batch: int, window: int, tasks: int) -> None:
    sampler, random = mixing(tasks, window, normalise=True), np.random.default_rng(3)
    target, found = online_share(np.array([0.05]), np.array([0.3]), 1.5, normalise=True)[0], []
    for _ in range(3 * window):
        shares = sampler.online_shares()
        tasks_drawn = random.integers(tasks, size=batch)
        online = random.random(batch) < shares[tasks_drawn]
        losses = np.where(online, 0.05, 0.3).astype(np.float32)
        sampler.observe(GroupLosses.of(tasks_drawn, online, losses, task_count=tasks))
        found.append(shares)
    assert np.array(found[window + 1 :]) == pytest.approx(target, abs=1e-6)


@given(st.floats(0.01, 5.0), st.floats(0.01, 5.0), st.floats(0.001, 1000.0))
def test_normalised_shares_do_not_depend_on_the_scale_of_the_losses(
    online: float, offline: float, scale: float
) -> None:
    pair = np.array([online]), np.array([offline])
    plain = online_share(*pair, 1.5, normalise=True)
    scaled = online_share(pair[0] * scale, pair[1] * scale, 1.5, normalise=True)
    assert plain == pytest.approx(scaled, abs=1e-9)


def test_flow_losses_hardly_move_the_papers_form_and_do_move_the_normalised_one() -> None:
    pair = np.array([0.10]), np.array([0.05])
    assert abs(online_share(*pair, 1.5)[0] - 0.5) < 0.03
    assert online_share(*pair, 1.5, normalise=True)[0] > 0.75
    assert online_share(np.zeros(1), np.zeros(1), 1.5, normalise=True)[0] == 0.5


def test_windows_continue_from_their_state_through_json() -> None:
    whole, second = mixing(window=5), mixing(window=5)
    random = np.random.default_rng(0)
    for _ in range(8):
        whole.observe(step(*random.random((2, 2)).tolist()))
    second.load_state(json.loads(json.dumps(whole.state())))
    for _ in range(8):
        np.testing.assert_array_equal(whole.online_shares(), second.online_shares())
        losses = step(*random.random((2, 2)).tolist())
        whole.observe(losses)
        second.observe(losses)


def test_windows_of_fixed_mixing_or_of_another_length_begin_afresh() -> None:
    sampler = mixing(window=5)
    sampler.load_state({})
    sampler.load_state(mixing(window=6).state())
    assert sampler.online_shares().tolist() == [0.5, 0.5]


def test_settings_choose_the_mixing() -> None:
    fixed = LearnerSettings(mixing="fixed", online_share=0.05)
    assert make_sampler(fixed, SPEC).online_shares().tolist() == [0.05] * 2
    chosen = LearnerSettings(online_share=0.05, adaptive_clip=(0.1, 0.9))
    assert chosen.mixing == "adaptive", "the paper's, where nothing else is said"
    assert make_sampler(chosen, SPEC).online_shares().tolist() == [0.1] * 2
    with pytest.raises(ValueError, match="adaptive_clip"):
        LearnerSettings(adaptive_clip=(0.9, 0.1))


def test_tasks_that_are_not_named_weigh_one() -> None:
    assert task_weights(LearnerSettings(), SPEC) is None
    weights = task_weights(LearnerSettings(task_weights={"push": 3.0}), SPEC)
    assert weights is not None
    assert dict(zip(SPEC.tasks, weights, strict=True)) == {"lift": 1.0, "push": 3.0}


SAMPLES = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.floats(width=32)), max_size=60)
"""Task, source, and a loss, which may be no number."""


def grouped(samples: list[tuple[int, bool, float]]) -> GroupLosses:
    tasks, online, losses = (np.array([sample[place] for sample in samples]) for place in range(3))
    return GroupLosses.of(tasks.astype(np.int64), online.astype(np.bool_), losses.astype(np.float32), task_count=3)


@given(SAMPLES, SAMPLES)
def test_draws_and_sums_of_tasks_and_sources_add_up_whatever_is_drawn(
    one: list[tuple[int, bool, float]], other: list[tuple[int, bool, float]]
) -> None:
    found, samples = grouped(one) + grouped(other), one + other
    numbers = [loss for *_, loss in samples if math.isfinite(loss)]
    rounding = 1e-12 * math.fsum(map(abs, numbers))
    for task, source in itertools.product(range(3), (OFFLINE, ONLINE)):
        mine = [loss for at, online, loss in samples if (at, online) == (task, source == ONLINE)]
        assert found.draws[task, source] == len(mine)
        finite = math.fsum(loss for loss in mine if math.isfinite(loss))
        assert found.sums[task, source] == pytest.approx(finite, rel=0.0, abs=rounding)
    count = len(samples) or 1
    assert found.mean == pytest.approx(math.fsum(numbers) / count, rel=0.0, abs=rounding)
    assert found.online_share == sum(online for _, online, _ in samples) / count


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0.0, 2.0), st.floats(0.0, 2.0)), min_size=2, max_size=2), st.integers(0, 99))
def test_what_is_drawn_converges_to_the_target_shares(losses: list[tuple[float, float]], seed: int) -> None:
    """The loop closed: shares decide what is drawn, and the losses of what is drawn decide the shares."""
    buffer, sampler, random = ReplayBuffer(SPEC, 256), mixing(window=10), np.random.default_rng(seed)
    for number, (task, online) in enumerate(itertools.product(SPEC.tasks, (False, True))):
        episode = marked(number, [True] * (3 + 40 * number), task=task, online=online)
        buffer.add(episode, everything(episode))
    told = np.array(losses)  # offline and online, by task
    drawn = GroupLosses.none(2)
    for update in range(160):
        batch = buffer.sample(random, sampler.online_shares())
        found = told[batch.tasks, batch.online.astype(int)].astype(np.float32)
        step = GroupLosses.of(batch.tasks, batch.online, found, task_count=2)
        sampler.observe(step)
        if update >= 10:  # by then both sources were seen
            drawn += step
    targets = np.clip(online_share(told[:, ONLINE], told[:, OFFLINE], 1.5), 0.2, 0.8)
    counts = drawn.draws.sum(axis=1)
    assert counts.sum() == 150 * 256
    # Hoeffding's bound: passed by chance once in 10⁹ examples.
    bounds = np.sqrt(math.log(2e9) / (2 * counts))
    assert (bounds < 0.03).all()
    assert (np.abs(drawn.draws[:, ONLINE] / counts - targets) <= bounds).all()
    np.testing.assert_allclose(sampler.online_shares(), targets, atol=1e-6)
