"""The pure core of the learner: episodes in, gradient steps, weights out. No Kafka, no S3, no clock.

With the same settings, the same admissions in the same order and the same calls of `update`, the weights are the
same bit for bit; `snapshot` and `restore` continue such a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.settings import LearnerSettings
from learner.adaptive import AdaptiveMixing
from learner.algorithms import CONDITIONED, make_algorithm
from learner.episodes import Episode, EpisodeRecord
from learner.policies import chunked
from learner.policies.artifact import Arrays, pack
from learner.policies.base import ACTION, STATE, Floats, PolicySpec, feature
from learner.replay import ReplayBuffer
from learner.sampler import Drawn, FixedMixing, GroupLosses, Sampler
from schemas.events import EpisodeDraws, EpisodeMaterialized, EpisodeSource, Feature

# Added to each standard deviation: an element that hardly moved in the demonstrations would else be divided by
# next to nothing, and drown all others once it moves in deployment. Among metres and radians 0.01 is more than a
# sensor's noise and less than a movement that matters.
_STD_FLOOR = 1e-2


class TrainingCore:
    """One policy in training with all that decides its future."""

    def __init__(self, settings: LearnerSettings, spec: PolicySpec) -> None:
        """Start with random weights."""
        self.spec = spec
        self.settings = settings
        self.algorithm = make_algorithm(settings, spec)
        self.sampler = make_sampler(settings, spec)
        self.random = np.random.default_rng(settings.seed)
        self.learner_step = 0
        self.online_updates = 0
        self.online_steps = 0
        self.episodes: dict[str, EpisodeRecord] = {}
        self._buffer = ReplayBuffer(spec, settings.batch_size)
        self._task_weights = task_weights(settings, spec)
        self._updates_per_online_step = settings.max_updates_per_online_step

    @property
    def steps_admitted(self) -> int:
        """Steps of all admitted episodes."""
        return sum(record.step_count for record in self.episodes.values())

    @property
    def trainable(self) -> bool:
        """Whether there is any frame to draw."""
        return bool(self._buffer.sizes().any())

    def require_admissible(self, event: EpisodeMaterialized) -> None:
        """Refuse an episode that the policy cannot learn from.

        Raises:
            UnfitEpisode: of another kind of robot, or another control rate.
            UnknownTask: the policy does not know its task.
        """
        self.spec.require_fit(event.features, event.fps)
        self.spec.task_index(event.task)

    def prepare(self, episodes: Sequence[Episode]) -> None:
        """Before anything is admitted: what the algorithm must learn from what the line begins with."""
        self.algorithm.prepare(episodes)

    def admit(self, episode: Episode) -> None:
        """Make an episode available to training, in the place of its earlier revision if there was one.

        Raises:
            UnknownTask: the policy does not know its task.
            ValueError: the episode is an evaluation, or older than what was admitted of it.
        """
        self._fill(episode)
        before = self.episodes.pop(episode.record.episode_id, None)
        if episode.record.online:
            self.online_steps += episode.record.step_count - (before.step_count if before else 0)
        self.episodes[episode.record.episode_id] = episode.record

    def refill(self, episode: Episode) -> None:
        """After `restore`, bring the frames of an admitted episode back; in the order of `episodes`."""
        self._fill(episode)

    def forget(self, episode_id: str) -> None:
        """Drop an episode that a label excludes, or whose payload can no longer be read."""
        self._buffer.remove(episode_id)
        self.algorithm.forget(episode_id)
        self.episodes.pop(episode_id, None)

    def begin_phase(self, learning_rate: float, decay_over: int | None = None) -> None:
        """A new phase of training; see `Algorithm.begin_phase`."""
        self.algorithm.begin_phase(learning_rate, decay_over)

    def update(self, *, online: bool) -> Drawn:
        """One gradient step; `online` ones are charged to what the fleet has brought.

        Raises:
            ValueError: there is nothing to draw.
        """
        wanted = self.sampler.online_shares()
        shares = self._buffer.shares(wanted)
        batch = self._buffer.sample(self.random, wanted, self._task_weights)
        metrics = self.algorithm.update(batch)
        losses = GroupLosses.of(batch.tasks, batch.online, metrics.losses, task_count=len(self.spec.tasks))
        self.sampler.observe(losses)
        self.learner_step += 1
        self.online_updates += online
        return Drawn(losses, shares)

    def take_draws(self) -> tuple[EpisodeDraws, ...]:
        """Which episodes were drawn from since the last call, and how often."""
        return self._buffer.draws.take()

    def updates_allowed(self) -> int:
        """Online updates that the fleet's steps so far still allow, so that a quiet fleet is not overfitted.

        None once labels have excluded all there was to draw.
        """
        if not self.trainable:
            return 0
        return max(0, int(self.online_steps * self._updates_per_online_step) - self.online_updates)

    def artifact(self) -> bytes:
        """The policy to publish; the same weights give the same bytes."""
        return pack(self.spec, self.algorithm.weights())

    def snapshot(self) -> tuple[dict[str, Any], Arrays]:
        """JSON document and tensors from which `restore` continues bit for bit, once the episodes are refilled."""
        document = {
            "spec": self.spec.model_dump(mode="json"),
            "learner_step": self.learner_step,
            "online_updates": self.online_updates,
            "online_steps": self.online_steps,
            "random": self.random.bit_generator.state,
            "sampler": self.sampler.state(),
            "episodes": [record.model_dump(mode="json") for record in self.episodes.values()],
        }
        return document, self.algorithm.state()

    @classmethod
    def restore(cls, settings: LearnerSettings, document: dict[str, Any], tensors: Arrays) -> TrainingCore:
        """The core of a snapshot, with an empty buffer: `refill` it with `episodes`, in their order.

        Raises:
            InvalidArtifact: the tensors are another policy's.
        """
        core = cls(settings, PolicySpec.model_validate(document["spec"]))
        core.algorithm.load_state(tensors)
        core.learner_step = document["learner_step"]
        core.online_updates = document["online_updates"]
        core.online_steps = document["online_steps"]
        core.random.bit_generator.state = document["random"]
        core.sampler.load_state(document["sampler"])
        records = [EpisodeRecord.model_validate(item) for item in document["episodes"]]
        core.episodes = {record.episode_id: record for record in records}
        return core

    def _fill(self, episode: Episode) -> None:
        record = episode.record
        if record.source is EpisodeSource.EVALUATION:
            raise ValueError(f"episode {record.episode_id} is an evaluation: never trained on")
        known = self.episodes.get(record.episode_id)
        if known is not None and known.revision > record.revision:
            raise ValueError(f"episode {record.episode_id} is known in revision {known.revision}")
        self._buffer.add(episode, self.algorithm.select(episode))


def make_sampler(settings: LearnerSettings, spec: PolicySpec) -> Sampler:
    """The mixing that the settings name."""
    if settings.mixing == "fixed":
        return FixedMixing(len(spec.tasks), settings.online_share)
    return AdaptiveMixing(
        len(spec.tasks),
        alpha=settings.adaptive_alpha,
        window=settings.adaptive_window,
        floor=settings.adaptive_clip[0],
        ceiling=settings.adaptive_clip[1],
        start=settings.online_share,
        normalise=settings.adaptive_normalise,
    )


def task_weights(settings: LearnerSettings, spec: PolicySpec) -> npt.NDArray[np.float64] | None:
    """Weights of the policy's tasks, 1 for those that the settings do not name; None when all are alike."""
    if not settings.task_weights:
        return None
    return np.array([settings.task_weights.get(task, 1.0) for task in spec.tasks])


def kind_of(event: EpisodeMaterialized) -> tuple[Feature, Feature, float]:
    """What one policy line is for: layout of the state, layout of the action, steps per second.

    Episodes of one kind fit the same policy (`PolicySpec.require_fit`), those of different kinds never do.

    Raises:
        UnfitEpisode: the episode declares no state or no action.
    """
    return feature(event.features, STATE), feature(event.features, ACTION), event.fps


def base_spec(
    settings: LearnerSettings, features: tuple[Feature, ...], fps: float, demonstrations: Sequence[Episode]
) -> PolicySpec:
    """Spec of a new policy line.

    Args:
        settings: architecture, chunk and hidden layers.
        features: layout of state and action that the line is for.
        fps: control rate, steps per second.
        demonstrations: all of that kind; their tasks are the policy's, their states its normalisation.
    """
    spec = PolicySpec(
        architecture=settings.architecture,
        hidden=settings.hidden,
        features=features,
        chunk=settings.chunk,
        fps=fps,
        tasks=tuple(sorted({episode.record.task for episode in demonstrations})),
        state_mean=(),
        state_std=(),
        conditioned=settings.algorithm in CONDITIONED,
    )
    normalisation = _moments("state", [episode.frames.states for episode in demonstrations])
    if settings.architecture != chunked.ARCHITECTURE:
        normalisation |= _moments("action", [episode.frames.actions for episode in demonstrations])
    return spec.model_copy(update=normalisation)


def _moments(name: str, parts: list[Floats]) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of each element, as float32 values, under the names that the spec has."""
    vectors = np.concatenate(parts).astype(np.float64)
    mean, std = vectors.mean(axis=0), vectors.std(axis=0) + _STD_FLOOR
    return {
        f"{name}_mean": tuple(float(value) for value in mean.astype(np.float32)),
        f"{name}_std": tuple(float(value) for value in std.astype(np.float32)),
    }
