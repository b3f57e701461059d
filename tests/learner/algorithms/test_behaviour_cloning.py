from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from learner.algorithms import behaviour_cloning
from learner.algorithms.behaviour_cloning import BehaviourCloning
from learner.policies.base import PolicySpec
from learner.replay import Batch
from schemas.events import EpisodeSource
from tests.learner.algorithms.test_hg_dagger import batch
from tests.learner.synthetic import make_episode
from tests.learner.test_replay import SPEC


class Constant:
    """A policy that is no network: the same action whatever it sees. An algorithm cannot tell."""

    spec: PolicySpec = SPEC

    def __init__(self) -> None:
        self._action = torch.zeros(3, requires_grad=True)

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        return (torch.from_numpy(batch.actions) - self._action).square().mean(dim=(1, 2))

    def parameters(self) -> list[torch.Tensor]:
        return [self._action]

    def names(self) -> list[str]:
        return ["action"]


def test_any_policy_is_trained_through_its_losses_alone() -> None:
    algorithm = BehaviourCloning(Constant(), seed=1, ema_half_life=0.0)
    algorithm.begin_phase(1e-1)
    made = batch()
    for _ in range(200):
        metrics = algorithm.update(made)
    np.testing.assert_allclose(algorithm.weights()["action"], made.actions.mean(axis=(0, 1)), atol=1e-3)
    assert metrics.losses.shape == (16,)


@pytest.mark.parametrize(
    ("source", "success", "expected"),
    [
        (EpisodeSource.DEMONSTRATION, True, True),
        (EpisodeSource.DEMONSTRATION, None, True),
        (EpisodeSource.DEMONSTRATION, False, False),
        (EpisodeSource.ONLINE, True, False),
    ],
)
def test_demonstrations_alone_are_cloned(source: EpisodeSource, success: bool | None, expected: bool) -> None:
    algorithm = BehaviourCloning(Constant(), seed=1, ema_half_life=0.0)
    selection = algorithm.select(make_episode(1, source=source, success=success).episode)
    assert selection.drawable.tolist() == [expected] * 12


def test_an_algorithm_is_small() -> None:
    source = behaviour_cloning.__file__
    assert source is not None
    assert len(Path(source).read_text().splitlines()) < 40


@pytest.mark.parametrize("absurd", [1e30, 1e21, 1e12, float("inf"), float("nan")])
def test_an_absurd_sample_costs_its_update_and_nothing_else(absurd: float) -> None:
    algorithm, undisturbed = (BehaviourCloning(Constant(), seed=1, ema_half_life=0.0) for _ in range(2))
    made, poisoned = batch(), batch()
    poisoned.actions[0, 0, 0] = absurd
    algorithm.update(made)
    algorithm.update(poisoned)
    algorithm.update(made)
    for _ in range(2):
        undisturbed.update(made)
    np.testing.assert_array_equal(algorithm.weights()["action"], undisturbed.weights()["action"])
