"""Reaching ClickHouse: what is down, what is refused, and what the analyst may not do."""

from __future__ import annotations

import clickhouse_connect
import pytest
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.httpclient import HttpClient
from pydantic import SecretStr
from urllib3 import Timeout

from infra.clickhouse.client import ClickHouseError, Client, connect, unavailable_as_ours
from infra.clickhouse.migrate import migrate
from infra.errors import AccessRefused, ClickHouseUnavailable, DeploymentConflict, SettingMissing
from infra.local.stack import Stack
from infra.settings import ClickHouseSettings, Settings


@pytest.fixture
def own(settings: Settings, name: str) -> ClickHouseSettings:
    """A database of its own, with nothing in it."""
    made = settings.clickhouse.model_copy(update={"database": name.replace("-", "_")})
    connect(made, database="default").command(f"CREATE DATABASE {made.database}")
    return made


def test_a_server_that_is_down_is_unavailable_by_its_address(settings: Settings) -> None:
    with pytest.raises(ClickHouseUnavailable, match=r"at 127\.0\.0\.1:1 "):
        connect(settings.clickhouse.model_copy(update={"port": 1}))


def test_a_frozen_server_is_unavailable_within_the_bound(stack: Stack, settings: Settings) -> None:
    bounded = settings.clickhouse.model_copy(update={"timeout": 0.5})
    client = connect(settings.clickhouse, database="default")
    assert isinstance(client, HttpClient)
    client.timeout = Timeout(0.5)  # only now: a busy server takes its time to let somebody in
    stack.pause("clickhouse")
    try:
        with pytest.raises(ClickHouseUnavailable):
            connect(bounded, database="default")
        with pytest.raises(ClickHouseUnavailable), unavailable_as_ours(bounded):
            client.query("SELECT 1")
    finally:
        stack.resume("clickhouse")
    assert connect(settings.clickhouse, database="default").query("SELECT 1").result_rows == [(1,)]


@pytest.mark.parametrize("changed", [{"password": SecretStr("wrong")}, {"username": "nobody"}], ids=str)
def test_a_refused_log_in_is_no_outage_and_names_the_user(settings: Settings, changed: dict[str, object]) -> None:
    wrong = settings.clickhouse.model_copy(update=changed)
    with pytest.raises(AccessRefused, match=f"refuses user '{wrong.username}'$"):
        connect(wrong, database="default")


@pytest.mark.parametrize("analyst", [False, True])
def test_a_database_that_does_not_exist_is_a_conflict_and_says_what_to_run(
    settings: Settings, name: str, *, analyst: bool
) -> None:
    missing = settings.clickhouse.model_copy(update={"database": f"{name.replace('-', '_')}_missing"})
    with pytest.raises(DeploymentConflict, match=rf"{missing.database}.*run `sop deploy`$"):
        connect(missing, analyst=analyst)


@pytest.mark.parametrize("code", [173, 202, 241, None])
def test_a_server_that_can_let_nobody_in_now_is_unavailable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    def full(**_: object) -> Client:
        raise DatabaseError(f"Code: {code}. DB::Exception: (total) memory limit exceeded", code=code)

    monkeypatch.setattr(clickhouse_connect, "get_client", full)
    with pytest.raises(ClickHouseUnavailable, match="memory limit exceeded"):
        connect(settings.clickhouse)


def test_without_an_analyst_nobody_queries_with_the_writers_rights(settings: Settings) -> None:
    lacking = settings.clickhouse.model_copy(update={"analyst_username": None})
    with pytest.raises(SettingMissing, match="SOP_CLICKHOUSE__ANALYST_USERNAME"):
        connect(lacking, analyst=True)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (2)",
        "CREATE TABLE u (n UInt8) ENGINE = MergeTree ORDER BY n",
        "CREATE DATABASE mine",
        "ALTER TABLE t DELETE WHERE 1",
        "TRUNCATE TABLE t",
        "DROP TABLE t",
        "OPTIMIZE TABLE t FINAL",
    ],
)
def test_the_analyst_reads_and_cannot_change_anything(own: ClickHouseSettings, statement: str) -> None:
    writer = connect(own)
    writer.command("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
    writer.command("INSERT INTO t VALUES (1)")
    analyst = connect(own, analyst=True)
    with pytest.raises(ClickHouseError):
        analyst.command(statement)
    for client in (analyst, writer):
        assert client.query("SELECT n FROM t").result_rows == [(1,)]
    assert "mine" not in databases(writer)


def test_the_analyst_cannot_lift_the_limit_that_keeps_it_from_writing(own: ClickHouseSettings) -> None:
    connect(own).command("CREATE TABLE t (n UInt8) ENGINE = MergeTree ORDER BY n")
    analyst = connect(own, analyst=True)
    with pytest.raises(ClickHouseError):
        analyst.command("SET readonly = 0")
    with pytest.raises(ClickHouseError):
        analyst.command("INSERT INTO t SETTINGS readonly = 0 VALUES (1)")
    assert connect(own).query("SELECT count() FROM t").result_rows == [(0,)]


def test_the_analyst_cannot_migrate(own: ClickHouseSettings) -> None:
    analyst = own.model_copy(update={"username": own.analyst_username, "password": own.analyst_password})
    with pytest.raises(ClickHouseError):
        migrate(analyst)


def databases(client: Client) -> set[str]:
    """All there are."""
    return {str(name) for (name,) in client.query("SELECT name FROM system.databases").result_rows}
