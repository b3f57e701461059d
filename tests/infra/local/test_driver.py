"""ClickHouse's Python driver, unmodified: what its users rely on, through the gateway."""

from __future__ import annotations

import asyncio
import gzip
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import clickhouse_connect
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from clickhouse_connect.driver import Client
from clickhouse_connect.driver.exceptions import DatabaseError
from clickhouse_connect.driver.external import ExternalData
from clickhouse_connect.driver.tools import insert_file

from infra.local.stack import Stack
from tests.infra.local.conftest import ClientMaker

BIG = "SELECT number FROM numbers(200000)"


@pytest.fixture
def rows(owner: Client) -> Iterator[str]:
    name = f"default.d{uuid.uuid4().hex[:8]}"
    columns = "a UInt32, s String, x Nullable(Float64), at DateTime64(3, 'UTC')"
    owner.command(f"CREATE TABLE {name} ({columns}) ENGINE = MergeTree ORDER BY a")
    yield name
    owner.command(f"DROP TABLE {name}")


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": np.arange(5, dtype="u4"),
            "s": list("abcde"),
            "x": [1.5, None, 2.0, 3.0, 4.0],
            "at": pd.date_range("2026-01-01", periods=5, tz="UTC"),
        }
    )


def test_pandas_both_ways(owner: Client, analyst: Client, rows: str) -> None:
    assert owner.insert_df(rows, frame()).written_rows == 5
    found = analyst.query_df(f"SELECT * FROM {rows} ORDER BY a")
    assert found["s"].tolist() == list("abcde")
    assert found["x"].isna().tolist() == [False, True, False, False, False]
    assert found["at"].dt.year.unique().tolist() == [2026]
    with analyst.query_df_stream(BIG) as stream:
        assert sum(len(block) for block in stream) == 200_000


def test_arrow_both_ways(owner: Client, analyst: Client, rows: str) -> None:
    table = pa.table(
        {
            "a": pa.array([1, 2], pa.uint32()),
            "s": ["x", "y"],
            "x": pa.array([None, 1.0]),
            "at": pa.array([0, 1], pa.timestamp("ms", tz="UTC")),
        }
    )
    assert owner.insert_arrow(rows, table).written_rows == 2
    assert analyst.query_arrow(f"SELECT a, s, x FROM {rows} ORDER BY a", use_strings=True).to_pydict() == {
        "a": [1, 2],
        "s": ["x", "y"],
        "x": [None, 1.0],
    }
    with analyst.query_arrow_stream(BIG) as stream:
        assert sum(block.num_rows for block in stream) == 200_000
    assert analyst.query_df_arrow(f"SELECT * FROM {rows}").shape == (2, 4)


def test_numpy_and_streams_of_rows_and_columns(analyst: Client) -> None:
    assert analyst.query_np("SELECT number FROM numbers(4)").ravel().tolist() == [0, 1, 2, 3]
    with analyst.query_np_stream(BIG) as blocks:
        assert sum(len(block) for block in blocks) == 200_000
    with analyst.query_row_block_stream(BIG) as row_blocks:
        assert sum(len(block) for block in row_blocks) == 200_000
    with analyst.query_column_block_stream(BIG) as column_blocks:
        assert sum(len(block[0]) for block in column_blocks) == 200_000


def test_a_stream_that_is_left_half_way_harms_no_later_query(analyst: Client) -> None:
    with analyst.query_rows_stream("SELECT number FROM numbers(20000000)") as stream:
        next(iter(stream))
    assert [analyst.query(f"SELECT {n}").result_rows for n in range(10)] == [[(n,)] for n in range(10)]


def test_raw_data_and_files(owner: Client, analyst: Client, rows: str, tmp_path: Path) -> None:
    assert owner.raw_insert(rows, ["a", "s"], b"1,x\n", fmt="CSV").written_rows == 1
    packed = gzip.compress(b"2,y\n")
    assert owner.raw_insert(rows, ["a", "s"], packed, fmt="CSV", compression="gzip").written_rows == 1
    (tmp_path / "more.csv").write_text("3,z\n4,w\n")
    done = insert_file(owner, rows, str(tmp_path / "more.csv"), fmt="CSV", column_names=["a", "s"])
    assert done.written_rows == 2
    assert analyst.raw_query(f"SELECT a, s FROM {rows} ORDER BY a", fmt="CSV") == b'1,"x"\n2,"y"\n3,"z"\n4,"w"\n'
    with analyst.raw_stream(BIG, fmt="CSV") as stream:
        assert stream.read().count(b"\n") == 200_000


def test_contexts_are_used_again(owner: Client, analyst: Client, rows: str) -> None:
    inserting = owner.create_insert_context(rows, ["a", "s"], data=[[1, "a"]])
    owner.insert(context=inserting)
    inserting.data = [[2, "b"]]
    owner.insert(context=inserting)
    asking = analyst.create_query_context(f"SELECT s FROM {rows} WHERE a = {{a:UInt32}}", parameters={"a": 1})
    assert analyst.query(context=asking).result_rows == [("a",)]
    asking.set_parameter("a", 2)
    assert analyst.query(context=asking).result_rows == [("b",)]


def test_settings_of_a_query_and_of_a_client(connect: ClientMaker, analyst: Client) -> None:
    ask = "SELECT getSetting('max_block_size')"
    assert analyst.query(ask, settings={"max_block_size": 123}).result_rows == [(123,)]
    assert connect(settings={"max_block_size": 77}).query(ask).result_rows == [(77,)]
    with pytest.raises(DatabaseError, match="115"):
        analyst.query("SELECT 1", settings={"no_such_setting": 1})


def test_temporary_tables_live_in_sessions(connect: ClientMaker) -> None:
    for options in ({"session_id": uuid.uuid4().hex}, {"autogenerate_session_id": True}):
        client = connect(**options)
        client.command("CREATE TEMPORARY TABLE kept (a Int8)")
        client.insert("kept", [[1], [2]], column_names=["a"])
        assert client.query("SELECT sum(a) FROM kept").result_rows == [(3,)]
    with pytest.raises(DatabaseError, match="60"):
        connect(autogenerate_session_id=False).query("SELECT * FROM kept")


def test_databases(connect: ClientMaker) -> None:
    assert connect(database="system").query("SELECT currentDatabase(), count() FROM one").result_rows == [
        ("system", 1)
    ]
    with pytest.raises(DatabaseError, match="81"):
        connect(database="no_such_database").query("SELECT 1")


def test_several_external_tables(analyst: Client) -> None:
    data = ExternalData(data=b"1\tx\n", file_name="one", fmt="TSV", types=["UInt8", "String"])
    data.add_file(data=b"2,y\n", file_name="two.csv", fmt="CSV", structure="a UInt8, b String")
    found = analyst.query("SELECT _1, _2, a, b FROM one CROSS JOIN two", external_data=data)
    assert found.result_rows == [(1, "x", 2, "y")]


def test_time_zones(analyst: Client) -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("America/New_York"))
    sql = "SELECT toDateTime64('2026-07-01 12:00:00', 0, 'America/New_York')"
    assert analyst.query(sql).result_rows[0][0] == noon
    # Of DateTime the engine's native format tells the instant, and not the zone: the driver takes it for UTC.
    sql = "SELECT toDateTime('2026-07-01 12:00:00', 'America/New_York')"
    assert analyst.query(sql).result_rows[0][0].replace(tzinfo=UTC) == noon
    tokyo = analyst.query("SELECT toDateTime('2026-07-01 12:00:00', 'UTC')", query_tz="Asia/Tokyo")
    assert tokyo.result_rows[0][0].hour == 21
    unix = "SELECT toUnixTimestamp(toDateTime('2026-07-01 12:00:00'))"
    shifted = analyst.query(unix, settings={"session_timezone": "Asia/Tokyo"}).result_rows[0][0]
    assert shifted == datetime(2026, 7, 1, 3, tzinfo=UTC).timestamp()


def test_parameters_of_every_kind_are_values(analyst: Client) -> None:
    given: dict[str, tuple[str, Any]] = {
        "i": ("Int8", -5),
        "f": ("Float64", 1.5),
        "s": ("String", "it's \\ \n \t `x`"),
        "d": ("Date", date(2026, 1, 2)),
        "t": ("DateTime", datetime(2026, 1, 2, 3, 4, 5)),
        "a": ("Array(UInt8)", [1, 2]),
        "b": ("Array(String)", ["x", "y'\""]),
        "u": ("UUID", uuid.uuid4()),
        "n": ("Nullable(String)", None),
    }
    sql = "SELECT " + ", ".join(f"{{{name}:{kind}}}" for name, (kind, _) in given.items())
    values = {name: value for name, (_, value) in given.items()}
    assert analyst.query(sql, parameters=values).result_rows == [tuple(values.values())]
    by_client = analyst.query("SELECT %(a)s, %(b)s", parameters={"a": "it's", "b": [1, 2]})
    assert by_client.result_rows == [("it's", [1, 2])]


def test_long_queries_and_parameters(connect: ClientMaker, analyst: Client) -> None:
    text = "x" * 300_000
    assert connect(form_encode_query_params=True).query(
        "SELECT length({s:String})", parameters={"s": text}
    ).result_rows == [(300_000,)]
    asked = analyst.query(f"SELECT length('{text}')", settings={"max_query_size": 10**7})
    assert asked.result_rows == [(300_000,)]


def test_what_a_query_did_is_told(owner: Client, analyst: Client, rows: str) -> None:
    assert owner.insert(rows, [[1, "a"]], column_names=["a", "s"]).written_rows == 1
    assert analyst.query("SELECT 1", settings={"query_id": "told-1"}).query_id == "told-1"
    assert analyst.command("SELECT count() FROM numbers(10)") == 10
    assert (owner.ping(), owner.min_version("24.1")) == (True, True)


def test_columns_that_are_made_from_others_are_left_out_of_inserts(owner: Client, rows: str) -> None:
    owner.command(
        f"CREATE OR REPLACE TABLE {rows} (a UInt8, b UInt8 DEFAULT a + 1, m UInt8 MATERIALIZED a * 2, "
        "l UInt8 ALIAS a * 3) ENGINE = Memory"
    )
    owner.insert(rows, [[4]], column_names=["a"])
    assert owner.query(f"SELECT a, b, m, l FROM {rows}").result_rows == [(4, 5, 8, 12)]


def test_many_at_once_from_threads_and_from_a_loop(connect: ClientMaker, stack: Stack, rows: str) -> None:
    client = connect(autogenerate_session_id=False)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda n: client.query(f"SELECT {n}").result_rows[0][0], range(60)))
    assert found == list(range(60))
    asyncio.run(_loop(stack, rows))


async def _loop(stack: Stack, rows: str) -> None:
    settings = stack.environment()
    client = await clickhouse_connect.get_async_client(
        host=settings["SOP_CLICKHOUSE__HOST"],
        port=int(settings["SOP_CLICKHOUSE__PORT"]),
        username=settings["SOP_CLICKHOUSE__USERNAME"],
        password=settings["SOP_CLICKHOUSE__PASSWORD"],
        autogenerate_session_id=False,
    )
    try:
        answers = await asyncio.gather(*(client.query(f"SELECT {n}") for n in range(20)))
        assert [answer.result_rows[0][0] for answer in answers] == list(range(20))
        await client.insert(rows, [[60, "async"]], column_names=["a", "s"])
        assert len(await client.query_df(f"SELECT * FROM {rows} WHERE a = 60")) == 1
        count = 0
        async with await client.query_rows_stream(BIG) as stream:
            async for _ in stream:
                count += 1
        assert count == 200_000
    finally:
        await client.close()


VALUES: dict[str, list[Any]] = {
    "Int8": [-(2**7), 2**7 - 1],
    "Int64": [-(2**63), 2**63 - 1],
    "Int128": [-(2**127)],
    "Int256": [-(2**255)],
    "UInt64": [2**64 - 1],
    "UInt256": [2**256 - 1],
    "Float32": [1.5, float("inf")],
    "BFloat16": [1.5],
    "Bool": [True, False],
    "Decimal(9, 2)": [Decimal("1.25")],
    "Decimal(76, 5)": [Decimal("-12.00001")],
    "String": ["äö\0x", ""],
    "FixedString(3)": [b"abc"],
    "UUID": [uuid.UUID(int=7)],
    "Date": [date(2026, 1, 2)],
    "Date32": [date(1930, 1, 2)],
    "DateTime": [datetime(2026, 1, 2, 3, 4, 5)],
    "DateTime64(6)": [datetime(2026, 1, 2, 3, 4, 5, 123456)],
    "Enum8('a' = 1, 'b' = -2)": ["a", "b"],
    "Enum16('x' = 1000)": ["x"],
    "IPv4": [ip_address("1.2.3.4")],
    "IPv6": [ip_address("::1")],
    "Array(Array(Int8))": [[[1], [2, 3], []]],
    "Tuple(Int8, String)": [(1, "x")],
    "Tuple(a Int8, b Array(String))": [{"a": 1, "b": ["q"]}],
    "Map(String, Array(Int8))": [{"k": [1, 2]}],
    "Nullable(String)": [None, "x"],
    "LowCardinality(Nullable(String))": [None, "q", "q"],
    "Array(LowCardinality(String))": [["a", "b"]],
    "Array(Nullable(Int32))": [[1, None]],
    "Variant(Int64, String)": [5, "x", None],
    "JSON": [{"a": {"b": 1}, "c": ["x"]}],
    "Point": [(1.0, 2.0)],
    "SimpleAggregateFunction(sum, UInt64)": [5],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_every_type_come_back_as_they_were_inserted(
    owner: Client, analyst: Client, rows: str, kind: str
) -> None:
    owner.command(f"CREATE OR REPLACE TABLE {rows} (k UInt32, v {kind}) ENGINE = MergeTree ORDER BY k")
    values = VALUES[kind]
    owner.insert(rows, [[at, value] for at, value in enumerate(values)], column_names=["k", "v"])
    assert [row[0] for row in analyst.query(f"SELECT v FROM {rows} ORDER BY k").result_rows] == values


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT INTERVAL 3 DAY", 3),
        ("SELECT NULL", None),
        ("SELECT toTime64('12:34:56.789', 3)", timedelta(hours=12, minutes=34, seconds=56, milliseconds=789)),
        ("SELECT hex(sumState(number)) FROM numbers(3)", "0300000000000000"),
    ],
)
def test_values_that_only_queries_have(analyst: Client, sql: str, value: object) -> None:
    assert analyst.query(sql).result_rows == [(value,)]


@pytest.mark.parametrize(
    "read",
    [
        lambda client, sql: client.query(sql).result_rows,
        lambda client, sql: client.query_df(sql),
        lambda client, sql: client.query_arrow(sql),
        lambda client, sql: client.query_np(sql),
    ],
    ids=["rows", "pandas", "arrow", "numpy"],
)
def test_a_query_that_fails_half_way_is_an_error_in_every_form(
    analyst: Client, read: Callable[[Client, str], object]
) -> None:
    with pytest.raises(DatabaseError, match="395"):
        read(analyst, "SELECT throwIf(number = 3000000) FROM numbers(5000000)")
    assert analyst.query("SELECT 1").result_rows == [(1,)]
