"""Clients of ClickHouse's HTTP interface."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError, OperationalError
from urllib3.exceptions import HTTPError

from infra.errors import AccessRefused, ClickHouseUnavailable, SettingMissing
from infra.settings import ClickHouseSettings

# The driver logs, with its stack, what it also raises; callers say it once.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)


def connect(settings: ClickHouseSettings, *, analyst: bool = False, database: str | None = None) -> Client:
    """A client without a session, so that threads may share it.

    Args:
        settings: where ClickHouse is.
        analyst: log in as the user who may only read.
        database: another database than the settings'.

    Raises:
        ClickHouseUnavailable: no answer in time.
        AccessRefused: the log-in is refused.
        SettingMissing: there is no analyst to log in as; the writer is no substitute.
    """
    username, password = settings.username, settings.password
    if analyst:
        if settings.analyst_username is None:
            raise SettingMissing(
                "queries need a user who may only read: set SOP_CLICKHOUSE__ANALYST_USERNAME (and _PASSWORD)"
            )
        username, password = settings.analyst_username, settings.analyst_password
    with unavailable_as_ours(settings), _refused_as_ours(settings, username):
        return clickhouse_connect.get_client(
            host=settings.host,
            port=settings.port,
            username=username,
            password=password.get_secret_value(),
            database=database or settings.database,
            secure=settings.secure,
            # The driver cuts off fractions, and takes no zero.
            connect_timeout=min(5, math.ceil(settings.timeout)),
            send_receive_timeout=math.ceil(settings.timeout),
            autogenerate_session_id=False,
        )


@contextmanager
def unavailable_as_ours(settings: ClickHouseSettings) -> Iterator[None]:
    """Turn the driver's connection errors into ClickHouseUnavailable; others pass."""
    try:
        yield
    except (OperationalError, HTTPError, ConnectionError, TimeoutError) as error:
        # The driver quotes the whole request; what matters is where, and why in its last words.
        reason = str(error).splitlines()[0].rsplit("Caused by ", 1)[-1][:200]
        raise ClickHouseUnavailable(
            f"ClickHouse does not answer at {settings.host}:{settings.port} ({reason})"
        ) from error


@contextmanager
def _refused_as_ours(settings: ClickHouseSettings, username: str) -> Iterator[None]:
    try:
        yield
    except DatabaseError as error:
        if error.code not in _REFUSED_CODES:
            raise
        raise AccessRefused(f"ClickHouse at {settings.host}:{settings.port} refuses user {username!r}") from error


_REFUSED_CODES = {192, 193, 194, 516}
"""Unknown user, wrong password, password required, authentication failed."""


__all__ = ["ClickHouseError", "Client", "connect", "unavailable_as_ours"]
