"""Asking ClickHouse as the user who may only read, and ending the command with one line if that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from infra.clickhouse.client import ClickHouseError, Client, connect
from infra.command import no_settings
from infra.errors import InfraError, SettingMissing, Unavailable
from infra.readiness import probes
from infra.settings import Settings, anything_set
from infra.terminal import fail


@contextmanager
def analyst(settings: Settings) -> Iterator[Client]:
    """A client for queries; what goes wrong while it is used ends the command: exit code 1, or 2 for wrong use."""
    try:
        client = connect(settings.clickhouse, analyst=True)
        try:
            yield client
        finally:
            client.close()
    except SettingMissing as error:
        fail(error if anything_set() else no_settings(), code=2)
    except Unavailable as error:
        fail(f"{error}; {probes(settings)['ClickHouse'].advice}")
    except (InfraError, ClickHouseError) as error:
        fail(error)
