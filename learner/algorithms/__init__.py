"""Training algorithms: they see batches, never the network. `make_algorithm` finds one by its name."""

from collections.abc import Callable

from infra.settings import LearnerSettings
from learner.algorithms import behaviour_cloning, hg_dagger, recap
from learner.algorithms.base import Algorithm, Metrics
from learner.policies import chunked, flow
from learner.policies.base import PolicySpec, TrainablePolicy
from learner.policies.chunked_network import ChunkedNetwork
from learner.policies.flow_network import FlowNetwork

ALGORITHMS: dict[str, Callable[[TrainablePolicy, LearnerSettings], Algorithm]] = {
    behaviour_cloning.NAME: lambda policy, settings: behaviour_cloning.BehaviourCloning(
        policy, seed=settings.seed, ema_half_life=settings.ema_half_life
    ),
    hg_dagger.NAME: lambda policy, settings: hg_dagger.HgDagger(
        policy, seed=settings.seed, ema_half_life=settings.ema_half_life, options=_hg_options(settings)
    ),
    recap.NAME: lambda policy, settings: recap.Recap(
        policy, seed=settings.seed, ema_half_life=settings.ema_half_life, options=_recap_options(settings)
    ),
}
"""What makes an algorithm, by its name in the settings (`LearnerSettings.algorithm` allows these)."""

NETWORKS: dict[str, Callable[[PolicySpec, int], TrainablePolicy]] = {
    chunked.ARCHITECTURE: ChunkedNetwork,
    flow.ARCHITECTURE: FlowNetwork,
}
"""What makes a policy to train of a spec and a seed, by architecture (`LearnerSettings.architecture`)."""

CONDITIONED = frozenset({recap.NAME})
"""Algorithms whose policies are told an advantage indicator."""

READINGS: dict[str, int] = {recap.NAME: recap.READINGS}
"""How often an algorithm's `prepare` goes through its episodes; where nothing is said, never."""


def make_algorithm(settings: LearnerSettings, spec: PolicySpec) -> Algorithm:
    """The algorithm that the settings name, with a new policy of that spec."""
    return ALGORITHMS[settings.algorithm](NETWORKS[spec.architecture](spec, settings.seed), settings)


def _hg_options(settings: LearnerSettings) -> hg_dagger.Options:
    return hg_dagger.Options(
        autonomous_weight=settings.hg_autonomous_weight,
        takeover_steps=settings.hg_takeover_steps,
        takeover_weight=settings.hg_takeover_weight,
        failed_weight=settings.hg_failed_weight,
    )


def _recap_options(settings: LearnerSettings) -> recap.Options:
    return recap.Options(
        failure_penalty=settings.recap_failure_penalty,
        look_ahead=settings.recap_look_ahead,
        positive_share=settings.recap_positive_share,
        positive_shares=settings.recap_positive_shares,
        threshold_steps=settings.recap_threshold_steps,
        dropout=settings.recap_dropout,
        value_steps=settings.recap_value_steps,
    )


__all__ = ["ALGORITHMS", "CONDITIONED", "NETWORKS", "READINGS", "Algorithm", "Metrics", "make_algorithm"]
