"""What ClickHouse's gateway refuses, and how it says so; ids, sessions and the ends of queries."""

from __future__ import annotations

import json
import threading
import uuid
from urllib.parse import quote

import pytest
from clickhouse_connect.driver import Client

from infra.local.clickhouse.errors import ACCESS_DENIED, NOT_IMPLEMENTED
from tests.infra.local.plain import Plain, wait_until

LONG = "SELECT sum(cityHash64(number)) FROM numbers(100000000000000)"


@pytest.mark.parametrize(
    "sql",
    [
        "DROP DATABASE system",
        "DROP DATABASE IF EXISTS `system` SYNC",
        "DROP DATABASE INFORMATION_SCHEMA",
        "DROP DATABASE default",
        "DETACH DATABASE default",
        "RENAME DATABASE system TO other",
        "DROP TABLE system.one",
        "TRUNCATE TABLE IF EXISTS system.one",
        "EXCHANGE TABLES default.a AND system.one",
        "SYSTEM SHUTDOWN",
        "SYSTEM KILL",
        "SYSTEM STOP LISTEN HTTP",
        "SYSTEM SUSPEND FOR 1 SECOND",
    ],
)
def test_nobody_ends_or_breaks_the_engine(plain: Plain, sql: str) -> None:
    status, _, headers = plain.post("", sql.encode())
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, str(ACCESS_DENIED))
    assert plain.get("SELECT count() FROM system.one") == (200, b"1\n")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE DATABASE files ENGINE = Filesystem('/etc')",
        "CREATE DATABASE other ENGINE = PostgreSQL('h', 'd', 'u', 'p')",
        "CREATE TABLE default.q (a Int8) ENGINE = NATS",
        "CREATE USER u",
        "ALTER USER default IDENTIFIED BY 'x'",
        "CREATE ROW POLICY p ON default.t USING 1",
        "CREATE SETTINGS PROFILE p",
        "GRANT SELECT ON *.* TO analyst",
        "SET ROLE r",
        "SET DEFAULT ROLE r TO u",
        "SHOW GRANTS",
    ],
)
def test_what_an_embedded_engine_cannot_do_is_said(plain: Plain, sql: str) -> None:
    status, body, headers = plain.post("", sql.encode())
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (501, str(NOT_IMPLEMENTED))
    assert b"here" in body


def test_what_only_sounds_like_it_is_allowed(owner: Client) -> None:
    name = f"default.v{uuid.uuid4().hex[:8]}"
    owner.command(f"CREATE VIEW {name} AS SELECT name AS grants FROM system.tables WHERE database = 'system'")
    assert owner.query(f"SELECT count() > 0 FROM {name}").result_rows == [(1,)]
    owner.command(f"DROP VIEW {name}")
    owner.command("SYSTEM STOP MERGES")
    owner.command("SYSTEM START MERGES")


def test_a_role_and_native_blocks_are_refused_and_not_ignored(plain: Plain) -> None:
    for query, part in (
        ("role=admin", b"roles"),
        ("decompress=1", b"Content-Encoding"),
        ("compress=1", b"Accept"),
    ):
        status, body, _ = plain.post(query, b"SELECT 1")
        assert (status, part in body) == (501, True), query
    assert plain.post("decompress=0", b"SELECT 1")[0] == 200


def test_a_log_that_only_a_server_keeps_is_named_as_such(plain: Plain) -> None:
    status, body, _ = plain.post("", b"SELECT * FROM system.query_log")
    assert status == 404
    assert b"a ClickHouse server has system.query_log" in body


def test_other_paths_are_not_queries(plain: Plain) -> None:
    assert plain.get("SELECT 1", path="/play")[0] == 404


def test_a_query_is_killed_by_the_id_and_user_that_its_client_knows(
    plain: Plain, plain_analyst: Plain, owner: Client
) -> None:
    mine, other = uuid.uuid4().hex, uuid.uuid4().hex
    answers: dict[str, bytes] = {}

    def run(query_id: str) -> None:
        answers[query_id] = plain_analyst.post(f"query_id={query_id}", LONG.encode(), timeout=120)[1]

    threads = [threading.Thread(target=run, args=(query_id,)) for query_id in (mine, other)]
    for thread in threads:
        thread.start()
    running = "SELECT count() FROM system.processes WHERE query LIKE '%sum(cityHash64(number))%numbers(1000%'"
    wait_until(lambda: owner.query(f"{running} AND query NOT LIKE '%processes%'").result_rows == [(2,)])
    again, text, _ = plain.post(f"query_id={mine}", b"SELECT 1")
    assert (again, b"already running" in text) == (500, True)
    owner.command(f"KILL QUERY WHERE query_id = '{mine}' AND user = 'sop'")
    owner.command(f"KILL QUERY WHERE query_id = '{mine}' AND user = 'analyst'")
    wait_until(lambda: mine in answers)
    assert b"QUERY_WAS_CANCELLED" in answers[mine]
    assert other not in answers
    owner.command("KILL QUERY WHERE user = 'analyst'")
    for thread in threads:
        thread.join(60)
    assert plain.post(f"query_id={mine}", b"SELECT 1")[:2] == (200, b"1\n")


def test_a_query_id_comes_back(plain: Plain) -> None:
    assert plain.post("query_id=abc", b"SELECT 1")[2]["X-ClickHouse-Query-Id"] == "abc"


def test_sessions_are_found_checked_and_closed(plain: Plain) -> None:
    name = uuid.uuid4().hex
    missing = plain.post(f"session_id={name}&session_check=1", b"SELECT 1")
    assert missing[2]["X-ClickHouse-Exception-Code"] == "372"
    assert plain.post(f"session_id={name}", b"CREATE TEMPORARY TABLE kept (a Int8)")[0] == 200
    assert plain.post(f"session_id={name}&session_check=1", b"SELECT count() FROM kept")[:2] == (200, b"0\n")
    assert plain.post(f"session_id={name}&close_session=1", b"SELECT 1")[0] == 200
    assert plain.post(f"session_id={name}&session_check=1", b"SELECT 1")[2]["X-ClickHouse-Exception-Code"] == "372"
    assert plain.post(f"session_id={name}", b"SELECT count() FROM kept")[0] == 404


def test_sessions_of_two_users_are_two(plain: Plain, plain_analyst: Plain) -> None:
    name = uuid.uuid4().hex
    assert plain.post(f"session_id={name}", b"SET max_threads = 3")[0] == 200
    ask = b"SELECT getSetting('max_threads') = 3"
    assert plain_analyst.post(f"session_id={name}", ask)[:2] == (200, b"0\n")


@pytest.mark.parametrize("form", ["Arrow", "JSON", "TabSeparated", "CSV"])
@pytest.mark.parametrize("session", [True, False])
def test_what_a_query_had_written_before_it_failed_reaches_nobody_else(
    plain: Plain, form: str, *, session: bool
) -> None:
    where = f"&session_id={uuid.uuid4().hex}" if session else ""
    sql = f"SELECT number, throwIf(number = 3000000) FROM numbers(5000000) FORMAT {form}".encode()
    assert b"FUNCTION_THROW_IF" in plain.post(f"wait_end_of_query=1{where}", sql)[1]
    for _ in range(10):
        assert plain.post(where.removeprefix("&"), b"SELECT 42")[:2] == (200, b"42\n")


def test_an_answer_that_is_waited_for_whole_is_an_error_and_nothing_else(plain: Plain) -> None:
    sql = b"SELECT number, throwIf(number = 3000000) FROM numbers(5000000) FORMAT CSV"
    status, body, headers = plain.post("wait_end_of_query=1", sql)
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "395")
    assert body.startswith(b"Code: 395.")
    streamed, body, _ = plain.post("", sql)
    assert (streamed, b"__exception__" in body[-2000:]) == (200, True)


def test_progress_is_told_once_it_is_known(plain: Plain) -> None:
    query = "send_progress_in_http_headers=1&wait_end_of_query=1"
    headers = plain.post(query, b"SELECT number FROM numbers(1000)")[2]
    assert json.loads(headers["X-ClickHouse-Progress"])["read_rows"] == "1000"
    assert json.loads(headers["X-ClickHouse-Summary"])["read_rows"] == "1000"


def test_a_client_s_log_comment_does_not_hide_its_query(plain: Plain) -> None:
    assert plain.post("log_comment=dashboard", b"SELECT 1")[:2] == (200, b"1\n")


@pytest.mark.parametrize(
    "described", ["e_types=UInt8,Array(Tuple(Int8,String))", "e_structure=_1 UInt8,_2 String"]
)
def test_external_tables_are_described_by_types_or_by_structure(plain: Plain, described: str) -> None:
    edge = uuid.uuid4().hex
    value = "[(1,'x')]" if "types" in described else "x"
    body = (
        f'--{edge}\r\nContent-Disposition: form-data; name="e"; filename="e"\r\n\r\n7\t{value}\n\r\n--{edge}--\r\n'
    ).encode()
    query = f"query={quote('SELECT _1, _2 FROM e')}&{quote(described, safe='=&')}"
    answer = plain.post(query, body, Content_Type=f"multipart/form-data; boundary={edge}")
    assert answer[:2] == (200, f"7\t{value}\n".encode())
