"""Policies: what robots run and algorithms train. `load_policy` is a robot's way in."""

from collections.abc import Callable

from learner.errors import InvalidArtifact, UnfitEpisode, UnknownTask
from learner.policies import chunked, flow
from learner.policies.artifact import Arrays, unpack
from learner.policies.base import Inference, Policy, PolicySpec

LOADERS: dict[str, Callable[[PolicySpec, Arrays, Inference], Policy]] = {
    chunked.ARCHITECTURE: chunked.ChunkedPolicy,
    flow.ARCHITECTURE: flow.FlowPolicy,
}
"""What makes a policy of an artifact, by architecture. Other people's policies are added here."""


def load_policy(data: bytes, inference: Inference | None = None) -> Policy:
    """The policy in an artifact; whoever calls this has verified its sha256.

    Args:
        data: the artifact.
        inference: how it is to be asked; what a policy has no use for, it does not heed.

    Raises:
        InvalidArtifact: the bytes are no policy, or one of an architecture that is not known here.
    """
    spec, weights = unpack(data)
    loader = LOADERS.get(spec.architecture)
    if loader is None:
        raise InvalidArtifact(f"architecture {spec.architecture!r} is not known here: {', '.join(LOADERS)}")
    return loader(spec, weights, inference or Inference())


__all__ = [
    "LOADERS",
    "Inference",
    "InvalidArtifact",
    "Policy",
    "PolicySpec",
    "UnfitEpisode",
    "UnknownTask",
    "load_policy",
]
