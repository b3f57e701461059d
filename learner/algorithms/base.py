"""What a training algorithm is. It sees batches, never Kafka, S3 or a clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from learner.episodes import Episode
from learner.policies.artifact import Arrays
from learner.policies.base import Floats, PolicySpec
from learner.replay import Batch, Selection


@dataclass(frozen=True, slots=True)
class Metrics:
    """Outcome of one update: the loss that was descended, and each sample's own, float32[B]."""

    loss: float
    losses: Floats


class Algorithm(Protocol):
    """Plug-in algorithm G of SOP (paper, Algorithm 1)."""

    @property
    def name(self) -> str:
        """As in settings and announcements."""
        ...

    @property
    def spec(self) -> PolicySpec:
        """What the policy in training reads and writes."""
        ...

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Learn what must be known before any frame is selected; once, from what the line begins with."""
        ...

    def select(self, episode: Episode) -> Selection:
        """Which frames of an episode are training data, and what is known of them."""
        ...

    def forget(self, episode_id: str) -> None:
        """An episode that was selected from is no longer training data."""
        ...

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """Start afresh with this learning rate; with `decay_over` it falls to a tenth over so many updates."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """One gradient step."""
        ...

    def weights(self) -> Arrays:
        """The weights to publish, by name."""
        ...

    def state(self) -> Arrays:
        """Everything that decides the updates to come: weights, averages, optimizer, random state."""
        ...

    def load_state(self, state: Arrays) -> None:
        """Go on from `state`, bit for bit.

        Raises:
            InvalidArtifact: the state is another policy's.
        """
        ...
