"""What an algorithm makes of an episode: which frames are training data, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.policies.base import Floats


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
