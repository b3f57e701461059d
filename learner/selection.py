"""What an algorithm makes of an episode: which frames are training data, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.settings import LearnerSettings
from learner.policies.base import Floats

_NO_ACCOUNT = frozenset(
    {
        *("pretrain_episodes", "pretrain_steps", "pretrain_learning_rate"),
        *("batch_size", "learning_rate", "task_weights", "mixing", "online_share"),
        *("adaptive_alpha", "adaptive_window", "adaptive_clip", "adaptive_normalise"),
        *("publish_every", "checkpoints_kept", "checkpoint_every", "max_updates_per_online_step", "tensorboard"),
    }
)
"""Settings by which no algorithm selects, and nothing leaves the buffer: how is drawn, descended and published."""


@dataclass(frozen=True, slots=True)
class Selection:
    """About an episode's n frames.

    drawable bool[n]; weights float32[n], factors of the frames' losses; advantages float32[n], NaN where unknown
    and +∞ where good by decree; breaks bool[n], frames behind which no chunk of targets goes on, besides those
    where control changes or steps are missing; None: there are none.
    """

    drawable: npt.NDArray[np.bool_]
    weights: Floats
    advantages: Floats
    breaks: npt.NDArray[np.bool_] | None = None

    @classmethod
    def of(
        cls,
        drawable: npt.NDArray[np.bool_],
        *,
        weights: Floats | None = None,
        advantages: Floats | None = None,
        breaks: npt.NDArray[np.bool_] | None = None,
    ) -> Selection:
        """A selection with weight 1, unknown advantages and no breaks, where nothing else is said."""
        return cls(
            drawable,
            np.ones(len(drawable), np.float32) if weights is None else weights,
            np.full(len(drawable), np.nan, np.float32) if advantages is None else advantages,
            breaks,
        )


def deciding(settings: LearnerSettings) -> dict[str, Any]:
    """The settings that may decide which frames are selected, as JSON: where they are the same, so are the frames.

    All but a few, so that one that is new counts until somebody knows better.
    """
    return settings.model_dump(mode="json", exclude=set(_NO_ACCOUNT))
