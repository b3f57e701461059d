"""Everything that set-up builds once per machine, in order."""

from __future__ import annotations

from infra.local.artifacts import Artifact
from infra.local.catalog import all_servers


def all_artifacts(java_version: str) -> list[Artifact]:
    """Return the artifacts that the local servers need; each may rely on those before it."""
    return [artifact for server in all_servers(java_version) for artifact in server.artifacts]
