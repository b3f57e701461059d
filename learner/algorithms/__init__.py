"""Training algorithms: they see batches, never the network. `make_algorithm` finds one by its name."""

from collections.abc import Callable

from infra.settings import LearnerSettings
from learner.algorithms import hg_dagger
from learner.algorithms.base import Algorithm, Metrics
from learner.policies.base import PolicySpec, TrainablePolicy
from learner.policies.chunked_network import ChunkedNetwork

ALGORITHMS: dict[str, Callable[[TrainablePolicy, LearnerSettings], Algorithm]] = {
    hg_dagger.NAME: lambda policy, settings: hg_dagger.HgDagger(
        policy, seed=settings.seed, ema_half_life=settings.ema_half_life
    ),
}
"""What makes an algorithm, by its name in the settings (`LearnerSettings.algorithm` allows these)."""


def make_algorithm(settings: LearnerSettings, spec: PolicySpec) -> Algorithm:
    """The algorithm that the settings name, with a new policy of that spec."""
    return ALGORITHMS[settings.algorithm](ChunkedNetwork(spec, settings.seed), settings)


__all__ = ["ALGORITHMS", "Algorithm", "Metrics", "make_algorithm"]
