"""HG-DAgger as SOP uses it: cloning of humans who are in control, and of demonstrations.

arXiv 1810.02890; SOP (arXiv 2601.03044), its section on algorithms: gate g = 1 while the human holds control.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from learner.algorithms.base import Metrics
from learner.algorithms.descent import Descent
from learner.episodes import Episode
from learner.policies.artifact import Arrays
from learner.policies.base import PolicySpec, TrainablePolicy
from learner.replay import Batch
from schemas.events import EpisodeSource

NAME = "hg-dagger"


class HgDagger:
    """Loss -log π(a|s), by the policy's surrogate, where a human acted. Implements `Algorithm`."""

    name = NAME

    def __init__(self, policy: TrainablePolicy, *, seed: int, ema_half_life: float) -> None:
        self._policy = policy
        self._descent = Descent(policy, seed=seed, ema_half_life=ema_half_life)

    @property
    def spec(self) -> PolicySpec:
        """What the policy in training reads and writes."""
        return self._policy.spec

    def select(self, episode: Episode) -> npt.NDArray[np.bool_]:
        """Frames under human control; all of a demonstration, unless it is known to have failed."""
        if episode.record.source is EpisodeSource.DEMONSTRATION:
            return np.full(len(episode.frames), episode.record.success is not False)
        return episode.frames.human.copy()

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """Start afresh with this learning rate; with `decay_over` it falls to a tenth over so many updates."""
        self._descent.begin_phase(learning_rate, decay_over)

    def update(self, batch: Batch) -> Metrics:
        """One gradient step on the mean of the samples' losses."""
        losses = self._policy.losses(batch)
        loss = losses.mean()
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
