"""What a new policy line is for: the kind of robot, and the spec that its demonstrations give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infra.settings import LearnerSettings
from learner.algorithms import CONDITIONED
from learner.episodes import Episode
from learner.errors import UnfitEpisode
from learner.policies import chunked
from learner.policies.base import ACTION, STATE, Floats, PolicySpec, feature, image_shape
from schemas.events import EpisodeMaterialized, Feature

# Added to each standard deviation: an element that hardly moved in the demonstrations would else be divided by
# next to nothing, and drown all others once it moves in deployment. Among metres and radians 0.01 is more than a
# sensor's noise and less than a movement that matters.
_STD_FLOOR = 1e-2
_IMAGES = ("uint8", "uint16")


@dataclass(frozen=True, slots=True)
class Kind:
    """What one policy line is for: layout of state and action, the cameras that it sees, steps per second.

    Episodes of one kind fit the same policy (`PolicySpec.require_fit`), those of different kinds never do.
    """

    features: tuple[Feature, ...]
    fps: float


def kind_of(event: EpisodeMaterialized, cameras: Sequence[str] = ()) -> Kind:
    """An episode's kind, to a policy that sees these cameras; those that it lacks are not in it.

    Raises:
        UnfitEpisode: the episode declares no state or no action.
    """
    vectors = feature(event.features, STATE), feature(event.features, ACTION)
    declared = {one.name: one for one in event.features}
    return Kind((*vectors, *(declared[name] for name in cameras if name in declared)), event.fps)


def features_for(features: tuple[Feature, ...], cameras: Sequence[str]) -> tuple[Feature, ...]:
    """An episode's features without the cameras that a policy does not see: a robot may do without those."""
    return tuple(one for one in features if one.dtype not in _IMAGES or one.name in cameras)


def sees(features: tuple[Feature, ...], cameras: Sequence[str]) -> bool:
    """Whether all these cameras are among the features, and such as a policy can see."""
    try:
        for name in cameras:
            image_shape(feature(features, name))
    except UnfitEpisode:
        return False
    return True


def readings(settings: LearnerSettings) -> int:
    """How often `base_spec` goes through the demonstrations: for their tasks, and twice for moments."""
    return 3 if settings.architecture == chunked.ARCHITECTURE else 5


def base_spec(
    settings: LearnerSettings, features: tuple[Feature, ...], fps: float, demonstrations: Sequence[Episode]
) -> PolicySpec:
    """Spec of a new policy line.

    Args:
        settings: architecture, chunk and hidden layers.
        features: layout of state and action that the line is for, and the cameras that its policy sees.
        fps: control rate, steps per second.
        demonstrations: all of that kind; their tasks are the policy's, their states its normalisation. They are
            gone through a few times, one after the other.
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
        cameras=settings.cameras,
    )
    normalisation = _moments("state", spec.state_size, lambda: (e.frames.states for e in demonstrations))
    if settings.architecture != chunked.ARCHITECTURE:
        normalisation |= _moments("action", spec.action_size, lambda: (e.frames.actions for e in demonstrations))
    return spec.model_copy(update=normalisation)


def _moments(name: str, size: int, parts: Callable[[], Iterable[Floats]]) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of each element, as float32 values, under the names that the spec has.

    In two passes, row after row: one episode is in memory at a time.
    """
    total, count = np.zeros(size), 0
    for vectors in parts():
        total, count = _add_rows(total, vectors.astype(np.float64)), count + len(vectors)
    mean = total / count
    squares = np.zeros(size)
    for vectors in parts():
        squares = _add_rows(squares, np.square(vectors.astype(np.float64) - mean))
    std = np.sqrt(squares / count) + _STD_FLOOR
    return {
        f"{name}_mean": tuple(float(value) for value in mean.astype(np.float32)),
        f"{name}_std": tuple(float(value) for value in std.astype(np.float32)),
    }


def _add_rows(total: npt.NDArray[np.float64], rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    summed: npt.NDArray[np.float64] = np.add.reduce(np.concatenate((total[None], rows)), axis=0)
    return summed
