from __future__ import annotations

import json

import numpy as np
import pytest

from infra.settings import LearnerSettings
from learner.core import TrainingCore
from learner.line_spec import base_spec
from learner.policies import load_policy
from learner.policies.artifact import pack_json, unpack_json
from schemas.events import EpisodeSource
from tests.learner.synthetic import Synthetic, make_episode

SETTINGS = LearnerSettings(batch_size=32, hidden=(16,), max_updates_per_online_step=0.5)


def demonstrations() -> list[Synthetic]:
    return [
        make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=30)
        for n, task in enumerate(("push", "lift"))
    ]


def started(settings: LearnerSettings = SETTINGS) -> TrainingCore:
    demos = demonstrations()
    core = TrainingCore(
        settings,
        base_spec(settings, demos[0].event.features, demos[0].event.fps, [demo.episode for demo in demos]),
    )
    core.prepare([demo.episode for demo in demos])
    for demo in demos:
        core.admit(demo.episode)
    core.begin_phase(1e-3)
    return core


def test_base_is_normalised_by_the_demonstrations_and_knows_their_tasks() -> None:
    spec = started().spec
    assert spec.tasks == ("lift", "push")
    assert spec.fps == 10.0
    states = np.concatenate([demo.episode.frames.states for demo in demonstrations()])
    np.testing.assert_allclose(spec.state_mean, states.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(spec.state_std, states.std(axis=0) + 0.01, atol=1e-4)


def test_evaluation_is_refused_even_if_it_comes_this_far() -> None:
    core = started()
    with pytest.raises(ValueError, match="never trained on"):
        core.admit(make_episode(9, source=EpisodeSource.EVALUATION).episode)
    assert len(core.episodes) == 2


def test_updates_are_bounded_by_what_the_fleet_has_brought() -> None:
    core = started()
    core.update(online=False)
    assert core.updates_allowed() == 0
    core.admit(make_episode(5, steps=12).episode)
    assert core.updates_allowed() == 6
    core.update(online=True)
    assert core.updates_allowed() == 5
    core.admit(make_episode(5, steps=16, revision=2).episode)
    assert core.updates_allowed() == 7, "a revision adds only the steps that are new"
    with pytest.raises(ValueError, match="revision 2"):
        core.admit(make_episode(5, steps=12, revision=1).episode)
    core.forget(make_episode(5).record.episode_id)
    core = TrainingCore.restore(SETTINGS, *unpack_json(pack_json(*core.snapshot())))
    for demo in demonstrations():
        core.refill(demo.episode)
    core.admit(make_episode(5, steps=18, revision=3).episode)
    assert core.updates_allowed() == 8, "nor do those of an episode that was excluded and came back"


@pytest.mark.parametrize("algorithm", ["hg-dagger", "recap"])
@pytest.mark.parametrize("mixing", ["fixed", "adaptive"])
def test_continuing_from_a_snapshot_gives_the_same_bytes(mixing: str, algorithm: str) -> None:
    changes = {"mixing": mixing, "adaptive_window": 30, "algorithm": algorithm, "recap_value_steps": 20}
    settings = SETTINGS.model_copy(update=changes)
    online = [make_episode(n, steps=20) for n in range(10, 14)]
    whole, first = started(settings), started(settings)
    for core in (whole, first):
        core.admit(online[0].episode)
        core.admit(online[1].episode)
        core.admit(make_episode(10, steps=25, revision=2).episode)
        for _ in range(20):
            core.update(online=True)
    document, tensors = unpack_json(pack_json(*first.snapshot()))
    second = TrainingCore.restore(settings, json.loads(json.dumps(document)), tensors)
    stored = {made.record.payload_uri: made for made in (*demonstrations(), *online)}
    revised = make_episode(10, steps=25, revision=2)
    stored[revised.record.payload_uri] = revised
    for record in list(second.episodes.held()):
        second.refill(stored[record.payload_uri].episode)
    for core in (whole, second):
        core.admit(online[2].episode)
        for _ in range(20):
            core.update(online=True)
    assert whole.artifact() == second.artifact()
    assert whole.updates_allowed() == second.updates_allowed()
    assert whole.snapshot()[0] == second.snapshot()[0]


def test_another_learning_rate_counts_from_a_restart_on_but_for_one_that_falls() -> None:
    core = started()
    core.update(online=False)
    other = SETTINGS.model_copy(update={"learning_rate": 7e-3})
    same, faster = (TrainingCore.restore(one, *core.snapshot()) for one in (SETTINGS, other))
    before, after = (restored.algorithm.state() for restored in (same, faster))
    assert [before["schedule"][0], after["schedule"][0]] == [1e-3, 7e-3]
    for name in before:  # moments and all
        assert name == "schedule" or np.array_equal(before[name], after[name])
    core.begin_phase(2e-3, decay_over=10)
    assert TrainingCore.restore(other, *core.snapshot()).algorithm.state()["schedule"].tolist() == [2e-3, 10, 0]


def test_training_imitates_the_demonstrations() -> None:
    core = started(SETTINGS.model_copy(update={"hidden": (64,), "ema_half_life": 5.0}))
    core.begin_phase(3e-3)
    for _ in range(400):
        core.update(online=False)
    policy = load_policy(core.artifact())
    demo = demonstrations()[0].episode
    planned = np.stack([policy.act(state, "push")[0] for state in demo.frames.states])
    assert np.square(planned - demo.frames.actions).mean() < 0.05


def test_draws_are_told_by_task_and_source() -> None:
    core = started()
    core.admit(make_episode(7, task="lift", steps=30, human=(0, 30)).episode)
    drawn = core.update(online=True)
    draws = drawn.losses.draws
    assert drawn.shares.tolist() == [0.5, 0.0]
    assert draws.sum() == 32
    assert draws[0].all()
    assert draws[1, 1] == 0, "push has no online data"
