"""ClickHouse's HTTP interface, as an unmodified client and as plain HTTP."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import lz4.frame
import pytest
import zstandard
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData

from infra.local.stack import Stack
from tests.infra.local.conftest import ClientMaker
from tests.infra.local.plain import Plain, wait_until


@pytest.mark.parametrize("compression", ["lz4", "zstd", "gzip", False])
def test_inserted_rows_are_selected(connect: ClientMaker, table: str, compression: object) -> None:
    client = connect(compress=compression)
    rows = [[number, f"row {number}", [0.5, number]] for number in range(3000)]
    client.insert(table, rows, column_names=["a", "s", "v"])
    assert client.query(f"SELECT count(), sum(a) FROM {table}").result_rows == [(3000, sum(range(3000)))]
    assert client.query(f"SELECT s, v FROM {table} WHERE a = 7").result_rows == [("row 7", [0.5, 7.0])]


def test_bound_parameters_are_not_sql(analyst: Client) -> None:
    text = "it's \\ `x`; DROP TABLE t"
    assert analyst.query("SELECT {text:String}", parameters={"text": text}).result_rows == [(text,)]


def test_external_table_is_queried(analyst: Client) -> None:
    data = ExternalData(data=b"1,a\n2,b\n", file_name="e.csv", fmt="CSV", structure="x UInt32, y String")
    assert analyst.query("SELECT y FROM e ORDER BY x", external_data=data).result_rows == [("a",), ("b",)]


def test_session_keeps_tables_and_settings_and_a_query_s_own_setting_ends_with_it(connect: ClientMaker) -> None:
    client = connect(session_id=uuid.uuid4().hex)
    client.command("CREATE TEMPORARY TABLE mine (a Int32)")
    client.command("INSERT INTO mine VALUES (5)")
    client.command("SET max_threads = 3")
    assert client.query("SELECT a FROM mine").result_rows == [(5,)]
    ask = "SELECT getSetting('max_threads')"
    assert client.query(ask, settings={"max_threads": 2}).result_rows == [(2,)]
    assert client.query(ask).result_rows == [(3,)]


def test_setting_without_a_session_does_not_reach_the_next_client(plain: Plain) -> None:
    assert plain.post("", b"SET max_threads = 7")[0] == 200
    answers = {plain.post("", b"SELECT getSetting('max_threads')")[1] for _ in range(20)}
    assert b"7\n" not in answers


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELEC 1", 62), ("SELECT nosuch", 47), ("SELECT * FROM nosuch", 60), ("SELECT throwIf(1)", 395)],
)
def test_errors_carry_clickhouse_s_codes(owner: Client, sql: str, code: int) -> None:
    with pytest.raises(DatabaseError, match=f"[Cc]ode: {code}"):
        owner.query(sql)


@pytest.mark.parametrize(
    ("definition", "code"),
    [
        ("CONSTRAINT small CHECK a < 1000) ENGINE = MergeTree ORDER BY a", 469),
        ("PROJECTION p (SELECT a ORDER BY a)) ENGINE = MergeTree ORDER BY a PARTITION BY a", 252),
    ],
    ids=["constraint", "too many partitions"],
)
def test_rows_that_parse_and_cannot_be_stored_are_not_acknowledged(
    owner: Client, table: str, definition: str, code: int
) -> None:
    owner.command(f"CREATE OR REPLACE TABLE {table} (a UInt32, {definition}")
    rows = [[n] for n in range(900, 1100)]
    with pytest.raises(DatabaseError, match=rf"(?i)code:? {code}"):
        owner.insert(table, rows, column_names=["a"])
    assert owner.command(f"SELECT count() FROM {table}") == 0
    owner.insert(table, rows[:50], column_names=["a"])
    assert owner.command(f"SELECT count() FROM {table}") == 50


def test_rows_count_as_written_and_settings_of_the_statement_hold(plain: Plain, table: str) -> None:
    sql = f"INSERT INTO {table} (a, s) SETTINGS format_csv_delimiter = ';' FORMAT CSV"
    status, body, headers = plain.post(f"query={quote(sql)}", b"1;x\n2;y\n")
    assert (status, body) == (200, b"")
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    assert plain.post("", f"SELECT s FROM {table} ORDER BY a".encode())[1] == b"x\ny\n"


def test_error_in_mid_stream_is_an_error(owner: Client) -> None:
    with pytest.raises(DatabaseError, match="395"):
        owner.query("SELECT throwIf(number = 3000000) FROM numbers(10000000)").result_rows  # noqa: B018


def test_unknown_setting_is_refused(plain: Plain) -> None:
    status, body, headers = plain.post("nosuch_setting=1", b"SELECT 1")
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (400, "115")
    assert b"UNKNOWN_SETTING" in body


def test_wrong_password_and_unknown_user_look_the_same(stack: Stack, plain: Plain) -> None:
    answers = []
    for name in ("sop", "nobody"):
        key = b64encode(f"{name}:wrong".encode()).decode()
        status, body, _ = plain.post("", b"SELECT 1", Authorization=f"Basic {key}")
        answers.append((status, body.replace(name.encode(), b"")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE default.x (a Int8) ENGINE = Memory",
        "INSERT INTO FUNCTION file('/tmp/never.csv') SELECT 1",
        "EXPLAIN SYNTAX INSERT INTO FUNCTION file('/tmp/never.csv') SELECT 1",
        "SET readonly = 0",
        "SELECT 1 SETTINGS readonly = 0",
        "SELECT * FROM file('/etc/hostname', 'LineAsString')",
        "SELECT file('/etc/hostname')",
        "SELECT * FROM s3('http://127.0.0.1:1/bucket/x.csv', NOSIGN, 'CSV', 'a Int8')",
        "SELECT * FROM url('http://127.0.0.1:1/x', CSV, 'a Int8')",
        "SELECT * FROM remote('127.0.0.1', system.one)",
        "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
        "SELECT * FROM executable('id', TSV, 'a String')",
        "SELECT * FROM Python(os)",
        "SELECT * FROM view(SELECT * FROM `file`('/etc/hostname'))",
        "WITH x AS (SELECT * FROM sqlite('/x', 't')) SELECT * FROM x",
        "DESCRIBE TABLE s3('http://127.0.0.1:1/bucket/x.csv')",
        "KILL QUERY WHERE 1",
        "SYSTEM FLUSH LOGS",
    ],
)
def test_analyst_may_only_read(plain_analyst: Plain, sql: str) -> None:
    status, _, headers = plain_analyst.post("", sql.encode())
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (403, "164")


@pytest.mark.parametrize(
    ("sql", "advice"),
    [("SELCT 1", "did you mean SELECT?"), ("xyzzy", "a query begins with SELECT"), ("DORP TABLE t", "mean DROP?")],
)
def test_analyst_s_slip_of_the_pen_is_a_syntax_error_and_no_breach_of_readonly(
    analyst: Client, sql: str, advice: str
) -> None:
    with pytest.raises(DatabaseError) as refused:
        analyst.query(sql)
    assert "SYNTAX_ERROR" in str(refused.value)
    assert advice in str(refused.value)


def test_analyst_s_setting_by_url_cannot_lift_readonly(plain_analyst: Plain) -> None:
    assert plain_analyst.post("readonly=0", b"SELECT 1")[2]["X-ClickHouse-Exception-Code"] == "164"


def test_analyst_cannot_insert_data(plain_analyst: Plain, table: str, owner: Client) -> None:
    status, _, _ = plain_analyst.post(f"query={quote(f'INSERT INTO {table} (a) FORMAT CSV')}", b"1\n")
    assert status == 403
    assert owner.query(f"SELECT count() FROM {table}").result_rows == [(0,)]


@pytest.mark.parametrize("name", ["`/etc/hostname`", "'/etc/hostname'", "default.`/etc/hostname`"])
def test_no_table_name_reaches_the_file_system(plain: Plain, name: str) -> None:
    assert plain.post("", f"SELECT * FROM {name}".encode())[2]["X-ClickHouse-Exception-Code"] == "60"


def test_kafka_engine_is_refused_and_harms_nothing(plain: Plain) -> None:
    sql = (
        b"CREATE TABLE default.k (a Int8) ENGINE = Kafka SETTINGS kafka_broker_list = 'x', kafka_topic_list = 't'"
    )
    assert plain.post("", sql)[2]["X-ClickHouse-Exception-Code"] == "48"
    assert plain.get("SELECT 1") == (200, b"1\n")


def test_plain_http_defaults_to_tab_separated(plain_analyst: Plain) -> None:
    assert plain_analyst.get("SELECT 1, 'x'") == (200, b"1\tx\n")
    assert json.loads(plain_analyst.get("SELECT 1 AS a FORMAT JSON")[1])["data"] == [{"a": 1}]
    assert plain_analyst.post("default_format=CSV", b"SELECT 1, 'x'")[1] == b'1,"x"\n'


def test_get_only_reads(plain: Plain, table: str) -> None:
    assert plain.get(f"DROP TABLE {table}")[0] == 403


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [("gzip", gzip.compress), ("lz4", lz4.frame.compress), ("zstd", zstandard.ZstdCompressor().compress)],
)
def test_encoded_bodies_both_ways(
    plain: Plain, table: str, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    query = f"query={quote(f'INSERT INTO {table} (a, s) FORMAT CSV')}"
    status, body, headers = plain.post(query, encode(b"1,one\n2,two\n"), Content_Encoding=encoding)
    assert (status, body) == (200, b"")
    assert json.loads(headers["X-ClickHouse-Summary"])["written_rows"] == "2"
    ask = f"SELECT s FROM {table} ORDER BY a".encode()
    _, body, headers = plain.post("enable_http_compression=1", ask, Accept_Encoding=encoding)
    assert headers["Content-Encoding"] == encoding
    decode = {
        "gzip": gzip.decompress,
        "lz4": lz4.frame.decompress,
        "zstd": zstandard.ZstdDecompressor().decompressobj().decompress,
    }
    assert decode[encoding](body) == b"one\ntwo\n"


def test_client_that_goes_away_ends_its_query(plain: Plain, owner: Client) -> None:
    mark = uuid.uuid4().hex
    sql = f"SELECT sum(cityHash64(number)), '{mark}' FROM numbers(100000000000000)".encode()

    def running() -> bool:
        ask = f"SELECT count() FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'"
        return bool(owner.query(ask).result_rows[0][0])

    client = socket.create_connection((plain.host, plain.port), timeout=30)
    authorization = plain.headers["Authorization"]
    head = f"POST / HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {len(sql)}\r\n\r\n"
    client.sendall(head.encode() + sql)
    wait_until(running)
    client.close()
    wait_until(lambda: not running())


def test_second_process_on_a_path_says_so(stack: Stack) -> None:
    path, secret = stack.data_dir / "clickhouse" / "data", str(stack.data_dir / "secrets" / "clickhouse-sop")
    command = [sys.executable, "-m", "infra.local.clickhouse", "--path", str(path), "--port", "1"]
    users = ["--sop-password", secret, "--analyst-password", secret]
    done = subprocess.run([*command, *users], capture_output=True, text=True, timeout=180, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "is open in another process" in done.stdout


ROOT = Path(__file__).resolve().parents[3]
