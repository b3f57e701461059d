"""What the algorithms here share: one descent on the weighted mean of the policy's own losses."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from learner.algorithms.base import Metrics
from learner.algorithms.descent import Descent
from learner.episodes import Episode
from learner.policies.artifact import Arrays
from learner.policies.base import PolicySpec, TrainablePolicy
from learner.replay import Batch


class GradientAlgorithm:
    """All of `Algorithm` but its name and `select`. What the policy is made of, nobody here knows."""

    def __init__(self, policy: TrainablePolicy, *, seed: int, ema_half_life: float) -> None:
        """`ema_half_life` in updates; the averaged weights are what is published."""
        self._policy = policy
        self._descent = Descent(policy, seed=seed, ema_half_life=ema_half_life)

    @property
    def spec(self) -> PolicySpec:
        """What the policy in training reads and writes."""
        return self._policy.spec

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Nothing to learn beforehand."""

    def forget(self, episode_id: str) -> None:
        """Nothing is remembered of single episodes."""

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """Start afresh with this learning rate; with `decay_over` it falls to a tenth over so many updates."""
        self._descent.begin_phase(learning_rate, decay_over)

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the mean of the samples' losses, weighted as they were selected."""
        losses = self._policy.losses(batch, self._descent.random)
        weights = torch.from_numpy(batch.weights)
        loss = (losses * weights).sum() / weights.sum()
        self._descent.step(loss)
        return Metrics(loss=float(loss.detach()), losses=losses.detach().numpy())

    def weights(self) -> Arrays:
        """The averaged weights."""
        return self._descent.averages()

    def state(self) -> Arrays:
        """Everything that decides the updates to come."""
        return self._descent.state()

    def load_state(self, state: Arrays) -> None:
        """Go on from `state`, bit for bit. Raise InvalidArtifact if it is another policy's."""
        self._descent.load_state(state)
