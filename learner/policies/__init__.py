"""Policies: what robots run and algorithms train. `load_policy` is a robot's way in."""

from collections.abc import Callable

from learner.errors import InvalidArtifact, UnfitEpisode, UnknownTask
from learner.policies.artifact import Arrays, unpack
from learner.policies.base import Policy, PolicySpec
from learner.policies.chunked import ARCHITECTURE, ChunkedPolicy

LOADERS: dict[str, Callable[[PolicySpec, Arrays, float], Policy]] = {ARCHITECTURE: ChunkedPolicy}
"""What makes a policy of an artifact and β, by architecture. Other people's policies are added here."""


def load_policy(data: bytes, *, guidance: float = 1.0) -> Policy:
    """The policy in an artifact; whoever calls this has verified its sha256.

    Args:
        data: the artifact.
        guidance: β of classifier-free guidance; a policy without an advantage indicator does not heed it.

    Raises:
        InvalidArtifact: the bytes are no policy, or one of an architecture that is not known here.
    """
    spec, weights = unpack(data)
    loader = LOADERS.get(spec.architecture)
    if loader is None:
        raise InvalidArtifact(f"architecture {spec.architecture!r} is not known here: {', '.join(LOADERS)}")
    return loader(spec, weights, guidance)


__all__ = ["LOADERS", "InvalidArtifact", "Policy", "PolicySpec", "UnfitEpisode", "UnknownTask", "load_policy"]
