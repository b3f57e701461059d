"""Inserts that fail: because of the rows, because of the set-up, or for now."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from infra.clickhouse.client import ClickHouseError, Client, connect
from infra.clickhouse.inserting import insert_rows
from infra.errors import ClickHouseUnavailable, DeploymentConflict, InfraError, RowsRefused
from infra.settings import ClickHouseSettings, Settings

GOOD = {"id": 1, "name": "a", "sha": "abcd", "label": "A"}


@pytest.fixture
def own(settings: Settings, name: str) -> ClickHouseSettings:
    """A database of its own with one table."""
    made = settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})
    connect(made, database="default").command(f"CREATE DATABASE {made.database}")
    connect(made).command(
        "CREATE TABLE t (id UInt8, name String, sha FixedString(4), label Enum8('A' = 1)) "
        "ENGINE = MergeTree ORDER BY id PARTITION BY id"
    )
    return made


@pytest.fixture
def client(own: ClickHouseSettings) -> Client:
    return connect(own)


@pytest.fixture
def insert(client: Client, own: ClickHouseSettings) -> Callable[..., None]:
    """Insert one good row, changed as asked."""

    def one(table: str = "t", **changes: object) -> None:
        row = {**GOOD, **changes}
        insert_rows(client, own, table, list(row), [list(row.values())])

    return one


@pytest.mark.parametrize(
    "changes",
    [{"id": 300}, {"id": "x"}, {"id": None}, {"name": None}, {"name": 3}, {"name": "\ud800"}, {"sha": "abcde"}],
    ids=ascii,
)
def test_a_value_that_its_column_cannot_take_is_the_rows_fault(
    insert: Callable[..., None], client: Client, changes: dict[str, object]
) -> None:
    with pytest.raises(RowsRefused):
        insert(**changes)
    insert()
    assert client.query("SELECT count() FROM t").result_rows == [(1,)]


def test_a_table_or_column_that_is_missing_is_the_deployments_fault(
    insert: Callable[..., None], own: ClickHouseSettings
) -> None:
    for arguments in ({"table": "none"}, {"newer": 1}):
        with pytest.raises(DeploymentConflict, match="sop deploy"):
            insert(**arguments)
    analyst = own.model_copy(update={"username": own.analyst_username, "password": own.analyst_password})
    with pytest.raises(DeploymentConflict):
        insert_rows(connect(analyst), own, "t", list(GOOD), [list(GOOD.values())])


class Refusing:
    """A driver whose server answers every insert with one error."""

    def __init__(self, code: int | None, text: str) -> None:
        self._error = DatabaseError(f"Code: {code}. DB::Exception: {text}", code=code)

    def insert(self, *_: object, **__: object) -> None:
        raise self._error


def refused(code: int | None, text: str = "that is how it is") -> type[Exception]:
    """How an insert that the server refuses so ends."""
    with pytest.raises(InfraError) as failed:
        insert_rows(Refusing(code, text), ClickHouseSettings(), "t", ["id"], [[1]])  # type: ignore[arg-type]
    return failed.type


@pytest.mark.parametrize("code", [33, 49, 159, 202, 209, 210, 241, 242, 243, 252, 319, 745, 999, 1002, None])
def test_a_server_that_cannot_write_now_says_nothing_about_the_rows(code: int | None) -> None:
    assert refused(code) is ClickHouseUnavailable


@pytest.mark.parametrize("code", [6, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 407, 469])
def test_a_server_that_cannot_read_a_value_refuses_the_rows(code: int) -> None:
    assert refused(code) is RowsRefused


@pytest.mark.parametrize("code", [16, 60, 81, 164, 192, 193, 194, 497, 516])
def test_a_server_that_was_not_set_up_for_us_is_a_conflict(code: int) -> None:
    assert refused(code) is DeploymentConflict


def test_an_insert_into_too_many_partitions_is_to_be_cut(client: Client) -> None:
    with pytest.raises(ClickHouseError) as failed:
        client.command("INSERT INTO t (id) SELECT number FROM numbers(200)")
    assert refused(getattr(failed.value, "code", None), str(failed.value)) is RowsRefused
