from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from learner.algorithms.recap import Options, Recap
from learner.episodes import Episode
from learner.errors import InvalidArtifact
from learner.policies.base import NEGATIVE, POSITIVE, UNCONDITIONED
from learner.policies.chunked_network import ChunkedNetwork
from learner.replay import Batch
from learner.team import Team
from schemas.events import EpisodeEnd, EpisodeSource
from tests.learner.algorithms.test_hg_dagger import batch
from tests.learner.synthetic import make_episode
from tests.learner.test_replay import SPEC

CONDITIONED = SPEC.model_copy(update={"conditioned": True})
OPTIONS = Options(value_steps=30, look_ahead=5)


def recap(options: Options = OPTIONS) -> Recap:
    return Recap(ChunkedNetwork(CONDITIONED, seed=1), seed=1, ema_half_life=0.0, options=options)


def episodes() -> list[Episode]:
    """Demonstrations, and autonomous successes and failures, of one task."""
    demonstrations = [make_episode(n, source=EpisodeSource.DEMONSTRATION, steps=20).episode for n in range(2)]
    autonomous = [make_episode(n, steps=30, human=None, success=n % 2 == 0).episode for n in range(2, 8)]
    return demonstrations + autonomous


def prepared(options: Options = OPTIONS) -> Recap:
    algorithm = recap(options)
    algorithm.prepare(episodes())
    return algorithm


def labelled(advantages: np.ndarray, task: int = 1) -> Batch:
    made = batch(size=len(advantages))
    made.tasks[:] = task
    return replace(made, advantages=advantages.astype(np.float32))


def test_human_corrections_are_positive_and_every_frame_is_drawn() -> None:
    algorithm = prepared()
    selection = algorithm.select(make_episode(20, steps=12, human=(4, 9)).episode)
    assert selection.drawable.all()
    assert np.isposinf(selection.advantages).tolist() == [False] * 4 + [True] * 5 + [False] * 3
    found = algorithm.indicators(labelled(selection.advantages[4:9]))
    assert (found == POSITIVE).all()


@pytest.mark.parametrize("policy_steps", [False, True])
def test_a_demonstration_is_positive_unless_it_is_known_to_have_failed(policy_steps: bool) -> None:
    for success, expected in ((True, POSITIVE), (None, POSITIVE), (False, NEGATIVE)):
        algorithm = prepared()
        if policy_steps:
            algorithm.select(make_episode(31, human=None, success=True, steps=30).episode)
        made = make_episode(30, source=EpisodeSource.DEMONSTRATION, success=success)
        advantages = algorithm.select(made.episode).advantages
        assert np.isposinf(advantages).all() == (expected == POSITIVE)
        if expected == POSITIVE or not policy_steps:  # else ε judges the steps of what failed
            assert (algorithm.indicators(labelled(advantages)) == expected).all()


def test_the_wanted_share_of_the_policys_steps_is_positive_by_task() -> None:
    for share in (0.1, 0.4):
        algorithm = prepared(replace(OPTIONS, positive_shares={"push": share}))
        parts = [algorithm.select(episode).advantages for episode in episodes()]
        advantages = np.concatenate([part[~np.isposinf(part)] for part in parts])
        assert len(advantages) == 180
        assert (algorithm.indicators(labelled(advantages)) == POSITIVE).mean() == pytest.approx(share, abs=0.01)


def test_an_update_tells_how_many_of_the_samples_that_lie_here_are_positive() -> None:
    algorithm = prepared(replace(OPTIONS, threshold_steps=0.0))
    made = labelled(np.array([0.5, 0.25, 1.0, -0.5, np.nan, np.nan, np.inf, -1.0]))
    named = algorithm.update(made).named
    assert (named["positive_share"], named["learning_rate"]) == (4 / 6, 1e-3)
    assert 0 < named["gradient_norm"] < 100
    algorithm.team = Team(2)
    algorithm.team.mine = [1]
    two = replace(made, ranks=np.array([1, 0, 0, 1, 1, 0, 0, 0]))
    assert algorithm.update(two).named["positive_share"] == 0.5
    nowhere = labelled(np.full(8, np.nan))
    assert algorithm.update(replace(nowhere, ranks=two.ranks)).named.keys() == {"learning_rate", "gradient_norm"}


def test_another_threshold_labels_anew_with_the_same_value_function() -> None:
    first = prepared(replace(OPTIONS, positive_share=0.2))
    second = recap(replace(OPTIONS, positive_share=0.7))
    second.load_state(first.state())
    made = episodes()[2]
    one, other = first.select(made), second.select(made)
    np.testing.assert_array_equal(one.advantages, other.advantages)
    assert second.thresholds()[1] < first.thresholds()[1]
    fixed = recap(replace(OPTIONS, threshold_steps=3.0))
    fixed.load_state(first.state())
    assert fixed.thresholds()[1] == 3.0 / 30


def test_only_known_outcomes_are_learned_from() -> None:
    def unknown(made: Episode, **changes: object) -> Episode:
        return replace(made, record=made.record.model_copy(update=changes))

    judged = episodes()
    others = [
        unknown(make_episode(50, steps=90, human=None).episode, end=EpisodeEnd.TRUNCATED),
        unknown(make_episode(51, steps=90, human=None).episode, success=None),
    ]
    one, other = recap(), recap()
    one.prepare(judged)
    other.prepare([*others, *judged])
    for name, values in one.state().items():
        np.testing.assert_array_equal(values, other.state()[name], err_msg=name)


def test_tasks_whose_failures_the_value_function_does_not_see_are_named() -> None:
    good = [episode for episode in episodes() if episode.record.success]
    with capture_logs() as logs:
        recap().prepare(good)
        recap().prepare([*episodes(), make_episode(70, task="lift", human=None, success=False).episode])
    warned = [line["tasks"] for line in logs if line["event"] == "value_function_sees_no_failure"]
    assert warned == [list(SPEC.tasks)]
    assert [line["failures"] for line in logs if line["event"] == "value_function_fitted"] == [0, 4]


def test_without_any_outcome_the_policys_steps_stay_unlabelled() -> None:
    algorithm = recap()
    algorithm.prepare([])
    selection = algorithm.select(make_episode(20, steps=12, human=(4, 9)).episode)
    found = algorithm.indicators(labelled(selection.advantages))
    assert (found == UNCONDITIONED).tolist() == [True] * 4 + [False] * 5 + [True] * 3


def test_the_value_function_is_frozen_online_and_the_threshold_forgets_episodes() -> None:
    algorithm = prepared()
    before = {name: array for name, array in algorithm.state().items() if name.startswith("value.")}
    made = episodes()
    algorithm.select(made[2])
    alone = algorithm.thresholds()[1]
    algorithm.select(make_episode(60, steps=30, human=None, success=False).episode)
    assert algorithm.thresholds()[1] != alone
    algorithm.forget(make_episode(60).record.episode_id)
    assert algorithm.thresholds()[1] == alone
    for step in range(5):
        algorithm.update(batch(step))
    for name, weights in before.items():
        np.testing.assert_array_equal(weights, algorithm.state()[name])


def test_the_threshold_is_the_quantile_of_what_is_held_whatever_came_and_went() -> None:
    algorithm, held = prepared(), dict[str, np.ndarray]()
    empty = np.empty(0, np.float32)
    for number in range(70, 95):
        episode = make_episode(number % 8 + 70, steps=30, human=(3, 5), success=number % 3 > 0).episode
        selection = algorithm.select(episode)
        held.pop(episode.record.episode_id, empty)
        held[episode.record.episode_id] = selection.advantages[~np.isposinf(selection.advantages)]
        if number % 4 == 0:
            gone = next(iter(held))
            del held[gone]
            algorithm.forget(gone)
        values = np.concatenate(list(held.values()))
        assert algorithm.thresholds()[1] == np.quantile(values, 0.6, method="lower")
        assert algorithm.thresholds()[0] == np.finfo(np.float32).max, "no step of the other task is known"
    shuffled = prepared()
    for episode_id in sorted(held, key=lambda name: name[::-1]):
        place = next(n for n in range(70, 78) if make_episode(n).record.episode_id == episode_id)
        record = make_episode(place).record
        shuffled.hear_of(record, held[episode_id].tobytes())
    assert shuffled.thresholds()[1] == algorithm.thresholds()[1]


class Listener(ChunkedNetwork):
    """Remembers what it was told."""

    told: np.ndarray

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        assert batch.indicators is not None
        self.told = batch.indicators
        return super().losses(batch, random)


def test_the_indicator_is_withheld_as_often_as_said_and_else_told() -> None:
    policy = Listener(CONDITIONED, seed=1)
    algorithm = Recap(policy, seed=1, ema_half_life=0.0, options=replace(OPTIONS, threshold_steps=0.0))
    advantages = np.tile(np.array([-0.1, 0.1], np.float32), 2000)
    algorithm.update(labelled(advantages))
    for kind, share in ((UNCONDITIONED, 0.3), (NEGATIVE, 0.35), (POSITIVE, 0.35)):
        assert (policy.told == kind).mean() == pytest.approx(share, abs=0.03)
    assert not (policy.told[advantages > 0] == NEGATIVE).any()
    assert not (policy.told[advantages < 0] == POSITIVE).any()


def test_continuing_from_a_saved_state_gives_the_same_bits() -> None:
    random = np.random.default_rng(0)
    batches = [labelled(random.normal(size=16)) for _ in range(10)]
    whole = prepared()
    losses = [whole.update(made).losses for made in batches]
    first, second = prepared(), recap()
    for made in batches[:5]:
        first.update(made)
    second.load_state(first.state())
    for made, expected in zip(batches[5:], losses[5:], strict=True):
        np.testing.assert_array_equal(second.update(made).losses, expected)
    state = {name: array for name, array in first.state().items() if name != "recap.horizons"}
    with pytest.raises(InvalidArtifact, match="RECAP"):
        second.load_state(state)
