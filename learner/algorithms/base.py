"""What a training algorithm is. It sees batches, never Kafka, S3 or a clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from learner.episodes import Episode, EpisodeRecord
from learner.frames import Room
from learner.policies.artifact import Arrays
from learner.policies.base import Floats, PolicySpec
from learner.replay import Batch
from learner.selection import Selection
from learner.team import Team

Fitting = Callable[[int, int], None]
"""Hears how many steps of a preparation are done, and how many there are."""


def unheard(_done: int, _all: int) -> None:
    """Nobody listens. Implements `Fitting`."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Outcome of one update: the loss that was descended, and each sample's own, float32[B].

    skipped: the gradient was no number, or absurd, and was not followed.
    named: whatever else is to be watched, by name; reports give the means of those that are numbers.
    """

    loss: float
    losses: Floats
    skipped: bool = False
    named: Mapping[str, float] = field(default_factory=dict)


class Algorithm(Protocol):
    """Plug-in algorithm G of SOP (paper, Algorithm 1)."""

    team: Team
    """Who trains together; set before the first update."""

    @property
    def name(self) -> str:
        """As in settings and announcements."""
        ...

    @property
    def spec(self) -> PolicySpec:
        """What the policy in training reads and writes."""
        ...

    def prepare(self, episodes: Sequence[Episode], room: Room | None = None, fitting: Fitting = unheard) -> None:
        """Learn what must be known before any frame is selected; once, from what the line begins with.

        Each access to `episodes` may read from the disk; `room` is where to put what memory need not hold;
        `fitting` hears how far it is, and decides nothing.
        """
        ...

    def select(self, episode: Episode) -> Selection:
        """Which frames of an episode are training data, and what is known of them.

        Asked again after a restart, unless nothing was selected and `known_of` has nothing to say.
        """
        ...

    def forget(self, episode_id: str) -> None:
        """An episode that was selected from is no longer training data."""
        ...

    def known_of(self, episode_id: str) -> bytes:
        """What ranks without an episode's frames must know of it, once its owner has selected from it."""
        ...

    def hear_of(self, record: EpisodeRecord, known: bytes) -> None:
        """What the owner knows of an episode whose frames are elsewhere."""
        ...

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """Start afresh with this learning rate; with `decay_over` it falls to a tenth over so many updates."""
        ...

    def go_on_at(self, learning_rate: float) -> None:
        """This learning rate from now on, unless one falls by its schedule; nothing starts afresh."""
        ...

    def update(self, batch: Batch) -> Metrics:
        """One gradient step.

        With several ranks the batch holds the samples that lie with this process, and `losses` are theirs.
        """
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
