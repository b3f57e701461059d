"""The servers of the stack, in the order in which people read them."""

from __future__ import annotations

from collections.abc import Sequence

from infra.local.clickhouse.server import ClickHouse
from infra.local.kafka.server import Kafka
from infra.local.object_store.server import Versitygw
from infra.local.registry.server import Apicurio
from infra.local.server import Server

SERVER_NAMES = ("broker", "object_store", "clickhouse", "registry")


def all_servers(java_version: str = "") -> list[Server]:
    """Return the servers; the exact Java version is needed to start them, not to probe them."""
    return [Kafka(java_version), Versitygw(), ClickHouse(), Apicurio(java_version)]


def missing_artifacts(servers: Sequence[Server]) -> list[str]:
    """Return the titles of what set-up has not built yet for these servers."""
    return [artifact.title for server in servers for artifact in server.artifacts if not artifact.path.is_dir()]
