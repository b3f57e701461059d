"""What a policy is: to a robot (`Policy`), and to a training algorithm (`TrainablePolicy`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from learner.errors import UnfitEpisode, UnknownTask
from schemas.events import Feature

if TYPE_CHECKING:
    import torch

    from learner.replay import Batch

Floats = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Images = Mapping[str, Image | None]
"""What cameras show, by name; None: nothing at the moment."""

STATE, ACTION = "state", "action"
"""Names of the two features that every policy here reads and writes."""

UNCONDITIONED, NEGATIVE, POSITIVE = 0, 1, 2
"""What a conditioned policy is told of an action: nothing, worse or better than expected (RECAP's indicator)."""


_LATER = ("conditioned", "action_mean", "action_std", "cameras")


class PolicySpec(BaseModel):
    """Everything about a policy but its weights; it travels in the artifact's metadata.

    architecture: which loader understands the weights; hidden: widths of its hidden layers.
    features: layout of `state` and `action`, as episodes declare them; and the cameras that it sees.
    chunk: actions planned at once. fps: control rate, steps per second. tasks: names, in one-hot order.
    state_mean, state_std: float32 values, one for each element of the state, from the demonstrations.
    conditioned: whether it is told an advantage indicator; robots tell it POSITIVE.
    action_mean, action_std: as those of the state, where the architecture plans in normalised actions.
    cameras: names of the features that it sees, uint8[height, width, 3] each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    architecture: str
    hidden: tuple[int, ...]
    features: tuple[Feature, ...]
    chunk: int
    fps: float
    tasks: tuple[str, ...]
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    conditioned: bool = False
    action_mean: tuple[float, ...] = ()
    action_std: tuple[float, ...] = ()
    cameras: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON. What came with later software is left out where it is not used: older robots do not know it."""
        unused = {name for name in _LATER if getattr(self, name) == type(self).model_fields[name].default}
        return self.model_dump(mode="json", exclude=unused)

    @property
    def state_size(self) -> int:
        """Number of elements of the state."""
        return feature(self.features, STATE).size

    @property
    def action_size(self) -> int:
        """Number of elements of one action."""
        return feature(self.features, ACTION).size

    @property
    def camera_shapes(self) -> dict[str, tuple[int, int, int]]:
        """Height, width and channels of what each camera shows, in the order of `cameras`.

        Raises:
            UnfitEpisode: one is missing among the features, or is no uint8[height, width, 3].
        """
        return {name: image_shape(feature(self.features, name)) for name in self.cameras}

    def task_index(self, task: str) -> int:
        """Place of a task in the one-hot.

        Raises:
            UnknownTask: the policy never saw it.
        """
        try:
            return self.tasks.index(task)
        except ValueError:
            raise UnknownTask(f"no task {task!r} in this policy; it knows {', '.join(self.tasks)}") from None

    def require_fit(self, features: tuple[Feature, ...], fps: float) -> None:
        """Refuse a robot, or an episode, whose vectors, cameras or control rate differ from the policy's.

        Raises:
            UnfitEpisode: the text says what differs.
        """
        for name in (STATE, ACTION, *self.cameras):
            ours, theirs = feature(self.features, name), feature(features, name)
            if ours != theirs:
                raise UnfitEpisode(f"feature {name!r} is {theirs}, the policy was trained with {ours}")
        if fps != self.fps:
            raise UnfitEpisode(f"control rate is {fps} Hz, the policy was trained at {self.fps} Hz")


def feature(features: tuple[Feature, ...], name: str) -> Feature:
    """The feature of that name.

    Raises:
        UnfitEpisode: there is none.
    """
    for candidate in features:
        if candidate.name == name:
            return candidate
    raise UnfitEpisode(f"no feature {name!r}; there are {', '.join(f.name for f in features) or 'none'}")


def image_shape(camera: Feature) -> tuple[int, int, int]:
    """Height, width and channels of a camera's images.

    Raises:
        UnfitEpisode: it is no uint8[height, width, 3].
    """
    if camera.dtype != "uint8" or len(camera.shape) != 3 or camera.shape[2] != 3:
        raise UnfitEpisode(f"feature {camera.name!r} is {camera}; a policy sees uint8 (height, width, 3)")
    height, width, channels = camera.shape
    return height, width, channels


@dataclass(frozen=True, slots=True)
class Inference:
    """How a robot asks its policy: `guidance` is β of a conditioned one, `seed` that of a plan's noise."""

    guidance: float = 1.0
    seed: int = 0


class Policy(Protocol):
    """What a robot runs."""

    @property
    def spec(self) -> PolicySpec:
        """Features, control rate, chunk length and tasks."""
        ...

    def act(self, state: Floats, task: str, images: Images | None = None) -> Floats:
        """Plan the next actions: `state` float32[d] to float32[chunk, a]; the first one is for now.

        `images` has uint8[h, w, 3] for each of the policy's cameras; None where one shows nothing at the moment.

        Raises:
            UnknownTask: the policy never saw the task.
            ValueError: the state or an image has another shape, or a camera's is missing.
        """
        ...


class TrainablePolicy(Protocol):
    """What an algorithm trains. Which network it is stays its own business."""

    @property
    def spec(self) -> PolicySpec:
        """Features, control rate, chunk length and tasks."""
        ...

    def losses(self, batch: Batch, random: torch.Generator) -> torch.Tensor:
        """Imitation loss of each sample, float32[B], differentiable; `random` is the only source of chance."""
        ...

    def parameters(self) -> list[torch.Tensor]:
        """Leaves that an optimizer changes, always in the same order."""
        ...

    def names(self) -> list[str]:
        """Their names in the artifact, in the order of `parameters`."""
        ...
