"""Inserting rows, and telling apart why that failed: the rows, the set-up, or the server."""

from __future__ import annotations

from collections.abc import Sequence

from clickhouse_connect.driver.exceptions import DataError

from infra.clickhouse.client import ClickHouseError, Client, error_code, is_deployment_error, unavailable_as_ours
from infra.errors import ClickHouseUnavailable, DeploymentConflict, RowsRefused
from infra.settings import ClickHouseSettings

_DATA_CODES = {
    *(6, 25, 26, 27, 38, 41, 72, 130, 376, 467, 675, 676),  # a text cannot be parsed
    *(19, 53, 69, 70, 321, 346, 349, 407, 691),  # a value does not fit its column
    *(117, 128, 131, 190, 248, 469, 632),  # data incorrect, array or string too large, a constraint
}
"""Those of ClickHouse's src/Common/ErrorCodes.cpp that speak of rows. 3, 32 and 33 (the data ended too early)
do not: a connection that breaks looks the same."""

_TOO_MANY_PARTS, _OF_ONE_INSERT = 252, "for single INSERT block"
"""A table with too many parts takes nothing for now; an insert into too many partitions must be cut in pieces."""

_CONVERSION = (ValueError, TypeError, AttributeError, ArithmeticError)
"""What the driver lets through from a value that its column's type cannot take; DataError is its own."""


def insert_rows(
    client: Client,
    settings: ClickHouseSettings,
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> None:
    """Insert rows, values in the order of `columns`. After an error some may be in: insert them all again.

    Raises:
        RowsRefused: because of what is in them; fewer at once may go in.
        DeploymentConflict: the table or a column is missing, or not ours to write.
        ClickHouseUnavailable: for any other reason (away, no memory, no room, too busy, ...): the same rows later.
    """
    try:
        with unavailable_as_ours(settings):
            client.insert(table, rows, column_names=columns)
    except (ClickHouseError, *_CONVERSION) as error:
        if is_deployment_error(error):
            raise DeploymentConflict(f"cannot write {table}: {error}. Has `sop deploy` run?") from error
        if is_data_error(error):
            raise RowsRefused(f"{type(error).__name__}: {error}") from error
        raise ClickHouseUnavailable(f"{settings.host}:{settings.port} does not write {table}: {error}") from error


def is_data_error(error: Exception) -> bool:
    """Whether ClickHouse, or its driver, refuses because of what is in the rows."""
    if error_code(error) == _TOO_MANY_PARTS:
        return _OF_ONE_INSERT in str(error)
    return error_code(error) in _DATA_CODES or isinstance(error, (DataError, *_CONVERSION))
