"""Plain behaviour cloning of demonstrations: the offline baseline, and how small an algorithm may be."""

from __future__ import annotations

import numpy as np

from learner.algorithms.gradient import GradientAlgorithm
from learner.episodes import Episode
from learner.selection import Selection
from schemas.events import EpisodeSource

NAME = "bc"


class BehaviourCloning(GradientAlgorithm):
    """Loss −log π(a|s), by the policy's surrogate, on demonstrations alone. Implements `Algorithm`."""

    name = NAME

    def select(self, episode: Episode) -> Selection:
        """All frames of a demonstration that is not known to have failed; nothing of what the fleet does."""
        record = episode.record
        wanted = record.source is EpisodeSource.DEMONSTRATION and record.success is not False
        return Selection.of(np.full(len(episode.frames), wanted))
