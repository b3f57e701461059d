"""HG-DAgger as SOP uses it: cloning of humans who are in control, and of demonstrations.

arXiv 1810.02890; SOP (arXiv 2601.03044), its section on algorithms: gate g = 1 while the human holds control.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.algorithms.gradient import GradientAlgorithm
from learner.episodes import Episode, Frames
from learner.policies.base import TrainablePolicy
from learner.selection import Selection
from schemas.events import EpisodeEnd, EpisodeSource

NAME = "hg-dagger"


@dataclass(frozen=True, slots=True)
class Options:
    """What is trained on besides human control, and of it; the defaults are the paper's: nothing, and all.

    autonomous_weight: of frames under the policy's control in episodes that ended in success; 0 leaves them out.
    takeover_steps: so many steps before a human took over led there. takeover_weight: factor of their weight, as
    in Sirius (arXiv 2211.08416), which gives them none; chunks of earlier steps end before them.
    failed_weight: of human steps in episodes that failed; 0 leaves out corrections that mended nothing, as failed
    demonstrations are left out.
    """

    autonomous_weight: float = 0.0
    takeover_steps: int = 0
    takeover_weight: float = 0.0
    failed_weight: float = 1.0


class HgDagger(GradientAlgorithm):
    """Loss −log π(a|s), by the policy's surrogate, where a human acted. Implements `Algorithm`."""

    name = NAME

    def __init__(
        self, policy: TrainablePolicy, *, seed: int, ema_half_life: float, options: Options | None = None
    ) -> None:
        super().__init__(policy, seed=seed, ema_half_life=ema_half_life)
        self._options = options or Options()

    def select(self, episode: Episode) -> Selection:
        """Frames under human control; all of a demonstration, unless it is known to have failed.

        By the options also what the policy did in episodes that ended in success.
        """
        record, frames = episode.record, episode.frames
        if record.source is EpisodeSource.DEMONSTRATION:
            return Selection.of(np.full(len(frames), record.success is not False))
        weights = frames.human.astype(np.float32)
        breaks = None
        if record.success is False:
            weights *= self._options.failed_weight
        if record.end is EpisodeEnd.TERMINATED and record.success:
            weights[~frames.human] = self._options.autonomous_weight
            if self._options.takeover_weight != 1.0:
                lowered = before_takeover(frames, self._options.takeover_steps)
                weights[lowered] *= self._options.takeover_weight
                # Nor are they targets of the steps before them, whose weight is full.
                breaks = np.zeros(len(frames), np.bool_)
                breaks[:-1] = lowered[1:] & ~lowered[:-1]
        return Selection.of(weights > 0, weights=weights, breaks=breaks)


def before_takeover(frames: Frames, steps: int) -> npt.NDArray[np.bool_]:
    """Frames under the policy's control, at most `steps` control steps before a human took over: bool[n]."""
    count = len(frames)
    found = np.zeros(count, np.bool_)
    for first in np.flatnonzero(frames.human[1:] & ~frames.human[:-1]) + 1:
        found |= (frames.index < frames.index[first]) & (frames.index >= frames.index[first] - steps)
    return found & ~frames.human
