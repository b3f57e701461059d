from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from infra.settings import LearnerSettings
from learner.algorithms import ALGORITHMS
from learner.algorithms.descent import Descent
from learner.algorithms.hg_dagger import HgDagger, Options, before_takeover
from learner.episodes import Frames
from learner.errors import InvalidArtifact
from learner.policies.chunked_network import ChunkedNetwork
from learner.replay import Batch, ReplayBuffer
from schemas.events import EpisodeEnd, EpisodeSource
from tests.learner.synthetic import ACTION, STATE, make_episode
from tests.learner.test_replay import SPEC


def test_settings_allow_the_algorithms_that_there_are() -> None:
    allowed = LearnerSettings.model_fields["algorithm"].annotation
    assert set(get_args(allowed)) == set(ALGORITHMS)


ARRAYS = ("states", "tasks", "online", "actions", "mask", "weights", "advantages")


def algorithm(half_life: float = 0.0, options: Options | None = None) -> HgDagger:
    return HgDagger(ChunkedNetwork(SPEC, seed=1), seed=1, ema_half_life=half_life, options=options)


def batch(seed: int = 0, size: int = 16) -> Batch:
    random = np.random.default_rng(seed)
    mask = np.ones((size, SPEC.chunk), np.float32)
    mask[::2, 2:] = 0
    return Batch(
        states=random.normal(size=(size, STATE)).astype(np.float32),
        tasks=random.integers(2, size=size),
        online=random.random(size) < 0.5,
        actions=random.normal(size=(size, SPEC.chunk, ACTION)).astype(np.float32),
        mask=mask,
        weights=np.ones(size, np.float32),
        advantages=np.full(size, np.nan, np.float32),
    )


def test_online_frames_are_training_data_where_a_human_acts() -> None:
    selected = algorithm().select(make_episode(1, steps=10, human=(3, 6)).episode)
    assert np.flatnonzero(selected.drawable).tolist() == [3, 4, 5]


def test_demonstrations_are_training_data_unless_they_are_known_to_have_failed() -> None:
    for success, expected in ((True, True), (None, True), (False, False)):
        made = make_episode(1, source=EpisodeSource.DEMONSTRATION, success=success)
        assert algorithm().select(made.episode).drawable.all() == expected


def test_successful_autonomous_segments_count_if_asked_for_and_what_led_to_a_takeover_counts_less() -> None:
    options = Options(autonomous_weight=0.5, takeover_steps=2, takeover_weight=0.25)
    good = make_episode(1, steps=10, human=(5, 7))
    selection = algorithm(options=options).select(good.episode)
    assert selection.drawable.all()
    assert selection.weights.tolist() == [0.5, 0.5, 0.5, 0.125, 0.125, 1.0, 1.0, 0.5, 0.5, 0.5]
    none = algorithm(options=replace(options, takeover_weight=0.0)).select(good.episode)
    assert np.flatnonzero(~none.drawable).tolist() == [3, 4]
    for changes in ({"success": False}, {"success": None}, {"end": EpisodeEnd.TRUNCATED}):
        other = replace(good.episode, record=good.record.model_copy(update=changes))
        assert np.flatnonzero(algorithm(options=options).select(other).drawable).tolist() == [5, 6]


@pytest.mark.parametrize(("weight", "reached"), [(0.0, 3), (0.25, 3), (1.0, 5)])
def test_what_counts_less_before_a_takeover_is_no_target_of_the_steps_before_it(
    weight: float, reached: int
) -> None:
    options = Options(autonomous_weight=0.5, takeover_steps=2, takeover_weight=weight)
    episode = make_episode(1, steps=10, human=(5, 7), task="push").episode
    buffer = ReplayBuffer(SPEC, batch_size=512)
    buffer.add(episode, algorithm(options=options).select(episode))
    drawn = buffer.sample(np.random.default_rng(0), np.ones(2))
    places = {tuple(state): place for place, state in enumerate(episode.frames.states.tolist())}
    for state, mask, told in zip(drawn.states.tolist(), drawn.mask, drawn.weights, strict=True):
        place = places[tuple(state)]
        if place < 3:
            assert told == 0.5
            assert int(mask.sum()) == min(reached - place, SPEC.chunk)
        elif place >= 5:
            assert int(mask.sum()) == min((7 if place < 7 else 10) - place, SPEC.chunk)
    assert {place for place in places.values() if place < 3} <= {places[tuple(s)] for s in drawn.states.tolist()}


def test_corrections_of_an_episode_that_failed_count_as_the_settings_say() -> None:
    saved = make_episode(1, steps=10, human=(5, 7))
    lost = replace(saved.episode, record=saved.record.model_copy(update={"success": False}))
    unknown = replace(saved.episode, record=saved.record.model_copy(update={"success": None}))
    for episode, weight, expected in (
        (lost, 1.0, [5, 6]),
        (lost, 0.0, []),
        (saved.episode, 0.0, [5, 6]),
        (unknown, 0.0, [5, 6]),
    ):
        selection = algorithm(options=Options(failed_weight=weight)).select(episode)
        assert np.flatnonzero(selection.drawable).tolist() == expected
    assert algorithm(options=Options(failed_weight=0.25)).select(lost).weights[5:7].tolist() == [0.25, 0.25]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), min_size=1, max_size=30), st.integers(0, 6))
def test_steps_before_a_takeover_are_those_within_reach_of_one(steps: list[tuple[bool, int]], reach: int) -> None:
    index = np.cumsum([gap for _, gap in steps]).astype(np.int32)
    human = np.array([acted for acted, _ in steps])
    vectors = np.zeros((len(steps), 1), np.float32)
    found = before_takeover(Frames(index, human, vectors, vectors, vectors[:, 0]), reach)
    takeovers = [index[n] for n in range(1, len(steps)) if human[n] and not human[n - 1]]
    expected = [
        not acted and any(0 < taken - at <= reach for taken in takeovers)
        for acted, at in zip(human, index, strict=True)
    ]
    assert found.tolist() == expected


def test_a_sample_counts_as_much_as_its_weight() -> None:
    one, other = batch(), batch()
    one.weights[8:] = 0.0
    half = replace(other, **{n: getattr(other, n)[:8] for n in ARRAYS})
    assert algorithm().update(one).loss == pytest.approx(algorithm().update(half).loss, rel=1e-6)


def test_masked_targets_have_no_part_in_the_loss() -> None:
    one, other = batch(), batch()
    other.actions[other.mask == 0] = 1e6
    np.testing.assert_array_equal(algorithm().update(one).losses, algorithm().update(other).losses)


def test_loss_falls_and_is_the_mean_of_the_samples() -> None:
    trained = algorithm()
    trained.begin_phase(1e-2)
    first = trained.update(batch())
    assert first.loss == pytest.approx(float(first.losses.mean()), rel=1e-5)
    for _ in range(300):
        last = trained.update(batch())
    assert last.loss < 0.5 * first.loss


def test_published_weights_lag_by_the_half_life() -> None:
    following, lagging = algorithm(half_life=0.0), algorithm(half_life=1.0)
    start = lagging.weights()
    for trained in (following, lagging):
        trained.update(batch())
    for name, now in following.weights().items():
        np.testing.assert_allclose(lagging.weights()[name], (start[name] + now) / 2, atol=1e-6)


def test_learning_rate_falls_to_a_tenth_over_the_phase() -> None:
    trained = algorithm()
    trained.begin_phase(1e-3, decay_over=10)
    rates = []
    for _ in range(15):
        rates.append(trained._descent.learning_rate)
        trained.update(batch())
    assert rates[0] == 1e-3
    assert rates[-1] == pytest.approx(1e-4)
    assert rates == sorted(rates, reverse=True)


def test_continuing_from_a_saved_state_gives_the_same_bits() -> None:
    whole, first, second = algorithm(20.0), algorithm(20.0), algorithm(20.0)
    for trained in (whole, first):
        trained.begin_phase(1e-3, decay_over=30)
        for step in range(10):
            trained.update(batch(step))
    second.update(batch(99))
    second.load_state(first.state())
    for step in range(10, 20):
        one, other = whole.update(batch(step)), second.update(batch(step))
        np.testing.assert_array_equal(one.losses, other.losses)
    for name, weights in whole.state().items():
        np.testing.assert_array_equal(weights, second.state()[name])


def test_adam_takes_the_steps_that_torch_takes() -> None:
    network, reference = (ChunkedNetwork(SPEC, seed=1) for _ in range(2))
    descent = Descent(network, seed=1, ema_half_life=0.0)
    descent.begin_phase(1e-2, None)
    adam = torch.optim.Adam(reference.parameters(), 1e-2)
    for step in range(20):
        descent.step(network.losses(batch(step), descent.random).mean())
        adam.zero_grad()
        reference.losses(batch(step), descent.random).mean().backward()  # type: ignore[no-untyped-call]
        adam.step()
    for ours, theirs in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_state_of_another_policy_is_refused() -> None:
    other = HgDagger(ChunkedNetwork(SPEC.model_copy(update={"hidden": (9,)}), 1), seed=1, ema_half_life=0.0)
    with pytest.raises(InvalidArtifact):
        other.load_state(algorithm().state())
    with pytest.raises(InvalidArtifact):
        other.load_state({"schedule": torch.zeros(3).numpy()})
