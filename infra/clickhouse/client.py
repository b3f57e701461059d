"""Clients of ClickHouse's HTTP interface."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError, ProgrammingError
from urllib3.exceptions import HTTPError

from infra.errors import AccessRefused, ClickHouseUnavailable, DeploymentConflict, SettingMissing
from infra.settings import ClickHouseSettings

# The driver logs, with its stack, what it also raises; callers say it once.
logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)

_REFUSED_CODES = {192, 193, 194, 516}
"""Unknown user, wrong password, password required, authentication failed."""
_DEPLOYMENT_CODES = {16, 60, 81, 164, 497, *_REFUSED_CODES}
"""No such column, table or database; read-only user; access denied; log-in refused."""


def connect(settings: ClickHouseSettings, *, analyst: bool = False, database: str | None = None) -> Client:
    """A client without a session, so that threads may share it.

    Args:
        settings: where ClickHouse is.
        analyst: log in as the user who may only read.
        database: another database than the settings'.

    Raises:
        ClickHouseUnavailable: no answer in time, or none for now (no memory, too busy, ...).
        AccessRefused: the log-in is refused.
        DeploymentConflict: there is no such database.
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
    except OperationalError:
        raise  # nobody answered
    except ClickHouseError as error:
        where, reason = f"ClickHouse at {settings.host}:{settings.port}", _reason(error)
        if error_code(error) in _REFUSED_CODES:
            raise AccessRefused(f"{where} refuses user {username!r}") from error
        if is_deployment_error(error):
            raise DeploymentConflict(f"{where} is not set up: {reason}; run `sop deploy`") from error
        raise ClickHouseUnavailable(f"{where} lets nobody in for now ({reason})") from error


def is_deployment_error(error: Exception) -> bool:
    """Whether ClickHouse refuses because of how it is set up."""
    # The driver, too, asks for a table's columns, and says so without a code.
    return error_code(error) in _DEPLOYMENT_CODES or isinstance(error, ProgrammingError)


def error_code(error: Exception) -> int | None:
    """ClickHouse's number of an error (its src/Common/ErrorCodes.cpp), if it has one."""
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else None


def _reason(error: Exception) -> str:
    """What ClickHouse says, without what the driver puts before it."""
    return (str(error).splitlines() or [repr(error)])[0].rsplit("DB::Exception: ", 1)[-1][:200]


__all__ = ["ClickHouseError", "Client", "connect", "error_code", "is_deployment_error", "unavailable_as_ours"]
