"""What the algorithms here share: one descent on the weighted mean of the policy's own losses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from learner.algorithms.base import Fitting, Metrics, unheard
from learner.algorithms.descent import Descent
from learner.episodes import Episode, EpisodeRecord
from learner.frames import Room
from learner.policies.artifact import Arrays
from learner.policies.base import Floats, PolicySpec, TrainablePolicy
from learner.replay import Batch
from learner.team import ALONE

LEARNING_RATE, GRADIENT_NORM = "learning_rate", "gradient_norm"


class GradientAlgorithm:
    """All of `Algorithm` but its name and `select`. What the policy is made of, nobody here knows."""

    def __init__(self, policy: TrainablePolicy, *, seed: int, ema_half_life: float) -> None:
        """`ema_half_life` in updates; the averaged weights are what is published."""
        self.team = ALONE
        self._policy = policy
        self._descent = Descent(policy, seed=seed, ema_half_life=ema_half_life)

    @property
    def spec(self) -> PolicySpec:
        """What the policy in training reads and writes."""
        return self._policy.spec

    def prepare(self, episodes: Sequence[Episode], room: Room | None = None, fitting: Fitting = unheard) -> None:
        """Nothing to learn beforehand."""

    def forget(self, episode_id: str) -> None:
        """Nothing is remembered of single episodes."""

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """Start afresh with this learning rate; with `decay_over` it falls to a tenth over so many updates."""
        self._descent.begin_phase(learning_rate, decay_over)

    def go_on_at(self, learning_rate: float) -> None:
        """This learning rate from now on, unless one falls by its schedule; nothing starts afresh."""
        self._descent.go_on_at(learning_rate)

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the mean of the samples' losses, weighted as they were selected."""
        if self.team.ranks > 1:
            return self._update_together(batch)
        losses = self.losses(batch, self._descent.random)
        weights = torch.from_numpy(batch.weights)
        loss = (losses * weights).sum() / weights.sum()
        rate = self._descent.learning_rate
        followed = self._descent.step(loss)
        return self._told(float(loss.detach()), losses.detach().numpy(), rate, followed=followed)

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        """Loss of each sample, float32[B], differentiable."""
        return self._policy.losses(batch, random)

    def known_of(self, episode_id: str) -> bytes:
        """Nothing that other ranks would have to know."""
        del episode_id
        return b""

    def hear_of(self, record: EpisodeRecord, known: bytes) -> None:
        """Nothing to hear."""

    def _update_together(self, batch: Batch) -> Metrics:
        """The same step; each rank computes the part of the sums whose samples lie with it.

        The mean is over the whole batch, however many samples a rank has of it; one that has none adds zeros.
        """
        parts, losses = [], np.zeros(len(batch), np.float32)
        for rank in self.team.mine:
            mine = np.flatnonzero(batch.ranks == rank)
            if len(mine):
                part = batch.only(mine)
                found = self.losses(part, self._descent.chance(rank))
                weights = torch.from_numpy(part.weights)
                loss = (found * weights).sum()
                sums = float(weights.sum()), float(loss.detach())
                gradient = self._descent.gradient(loss)
                losses[mine] = found.detach().numpy()
            else:
                gradient, sums = self._descent.gradient(None), (0.0, 0.0)
            parts.append(np.concatenate((gradient, np.array(sums, np.float32))))
        total = self.team.add(parts)
        weight = total[-2]
        rate = self._descent.learning_rate
        followed = self._descent.follow(self._descent.unflattened(total[:-2] / weight))
        return self._told(float(total[-1] / weight), losses, rate, followed=followed)

    def _told(self, loss: float, losses: Floats, rate: float, *, followed: bool) -> Metrics:
        named = {LEARNING_RATE: rate, GRADIENT_NORM: self._descent.gradient_norm}
        return Metrics(loss, losses, skipped=not followed, named=named)

    def weights(self) -> Arrays:
        """The averaged weights."""
        return self._descent.averages()

    def state(self) -> Arrays:
        """Everything that decides the updates to come."""
        return self._descent.state()

    def load_state(self, state: Arrays) -> None:
        """Go on from `state`, bit for bit. Raise InvalidArtifact if it is another policy's."""
        self._descent.load_state(state)
