"""The tokenizer and what is read off its tokens."""

from __future__ import annotations

import pytest

from infra.local.clickhouse.errors import QueryError
from infra.local.clickhouse.policy import Policy
from infra.local.clickhouse.settings import ReaderSettings
from infra.local.clickhouse.statement import IncompleteError, Statement, insert_header
from infra.local.clickhouse.tokens import tokenize

POLICY = Policy(
    {"file", "url", "s3", "numbers", "remote", "format", "values", "loop"},
    ReaderSettings(
        {"max_threads", "readonly", "format_schema", "filter", "format", "order", "max_result_bytes"}, 1000
    ),
)


def names(sql: str) -> list[str]:
    return [token.text.decode() for token in tokenize(sql.encode())]


@pytest.mark.parametrize(
    ("sql", "tokens"),
    [
        ("SELECT 1 -- x\n+2", ["SELECT", "1", "+", "2"]),
        ("SELECT /* a /* b */ c */ 1", ["SELECT", "1"]),
        (r"SELECT 'it''s \' ok' x", ["SELECT", r"'it''s \' ok'", "x"]),
        ('SELECT `a``b`."c"', ["SELECT", "`a``b`", ".", '"c"']),
        ("SELECT 1 # c\n, 2", ["SELECT", "1", ",", "2"]),
    ],
)
def test_strings_and_comments_hide_what_they_hold(sql: str, tokens: list[str]) -> None:
    assert names(sql) == tokens


@pytest.mark.parametrize(
    ("text", "sql", "settings", "format_", "data"),
    [
        (b"INSERT INTO t FORMAT Native\n\x00\x01", "INSERT INTO t", "", "Native", b"\x00\x01"),
        (b"insert into db.t (a, `b c`) format CSV\r\n1,2", "insert into db.t (a, `b c`)", "", "CSV", b"1,2"),
        (b"INSERT INTO format FORMAT TSV 1\t2", "INSERT INTO format", "", "TSV", b"1\t2"),
        (b"INSERT INTO settings FORMAT TSV 1\t2", "INSERT INTO settings", "", "TSV", b"1\t2"),
        (b"INSERT INTO t (settings) FORMAT TSV 1\t2", "INSERT INTO t (settings)", "", "TSV", b"1\t2"),
        (
            b"/* FORMAT x */ INSERT INTO t SETTINGS a=1, b='x' FORMAT CSV \n1",
            "/* FORMAT x */ INSERT INTO t",
            "SETTINGS a=1, b='x'",
            "CSV",
            b"1",
        ),
        (
            b"INSERT INTO FUNCTION s3('u', 'format CSV') FORMAT CSV\n1",
            "INSERT INTO FUNCTION s3('u', 'format CSV')",
            "",
            "CSV",
            b"1",
        ),
    ],
)
def test_insert_header_ends_where_the_data_begin(
    text: bytes, sql: str, settings: str, format_: str, data: bytes
) -> None:
    header = insert_header(text, whole=True)
    assert header is not None
    assert (header.sql, header.settings, header.format) == (sql, settings, format_)
    assert text[header.data_start :] == data


@pytest.mark.parametrize(
    "text",
    [
        b"SELECT 1 FORMAT CSV",
        b"INSERT INTO t VALUES (1)",
        b"INSERT INTO t SELECT 1 FORMAT CSV",
        b"INSERT INTO t (a) WITH 1 AS x SELECT x",
    ],
)
def test_other_statements_have_no_insert_header(text: bytes) -> None:
    assert insert_header(text, whole=True) is None


def test_every_cut_of_a_header_asks_for_more() -> None:
    text = b"INSERT INTO t (a, 'x') FORMAT Native\n"
    for cut in range(len(text)):
        with pytest.raises(IncompleteError):
            insert_header(text[:cut], whole=False)
    assert insert_header(text, whole=False) is not None


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 FORMAT JSON", "JSON"),
        ("SELECT 1 FORMAT JSON;", "JSON"),
        ("SELECT 1 FORMAT JSON SETTINGS max_threads = 1", "JSON"),
        ("SELECT 'FORMAT JSON'", None),
        ("SELECT * FROM format(CSV, '1')", None),
    ],
)
def test_format_clause(sql: str, expected: str | None) -> None:
    assert Statement.parse(sql.encode()).format == expected


@pytest.mark.parametrize("sql", ["", "  -- nothing\n", "SELECT 1; SELECT 2", "SELECT 'open", "SELECT /* open"])
def test_not_one_statement(sql: str) -> None:
    with pytest.raises(QueryError) as failure:
        Statement.parse(sql.encode())
    assert failure.value.code == 62


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1)",
        "DROP TABLE t",
        "KILL QUERY WHERE 1",
        "WITH 1 AS x INSERT INTO FUNCTION file('f') SELECT x",
        "EXPLAIN SYNTAX INSERT INTO t SELECT 1",
        "SELECT * FROM file('f')",
        "SELECT * FROM `file` ('f')",
        "SELECT * FROM \"f\\ile\"('f')",
        "SELECT * FROM File /* x */ ('f')",
        "SELECT (SELECT * FROM url('u'))",
        "SELECT * FROM s3('u', 'k', 's')",
        "SELECT $$ heredoc $$",
        "SELECT ‘unicode quotes’",
    ],
)
def test_reader_is_refused(sql: str) -> None:
    with pytest.raises(QueryError) as failure:
        POLICY.check(Statement.parse(sql.encode()), reader=True)
    assert failure.value.code == 164


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 'INSERT INTO t'",
        "(SELECT 1)",
        "SHOW TABLES",
        "SELECT t.file FROM t",
        "SELECT format('{}-{}', a, b) FROM (VALUES (1, 2)) AS t (a, b)",
        "SELECT 1 SETTINGS max_threads = 3, optimize_move_to_prewhere",
        "SET max_threads = 3;",
        "SELECT name FROM system.settings ORDER BY name",
        "SELECT name FROM system.settings FORMAT JSON",
        "SHOW SETTINGS LIKE '%x%'",
        "SELECT readonly FROM system.settings WHERE name = 'readonly' SETTINGS max_threads = 1 FORMAT JSON",
        "SELECT 1.5e3, .5, t.1.name, 0x1f FROM t",
        "SELECT 'file(' || 'ü'",
    ],
)
def test_reader_is_allowed(sql: str) -> None:
    POLICY.check(Statement.parse(sql.encode()), reader=True)


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE t (a Int8) ENGINE = Kafka",
        "CREATE TABLE t (a Int8) engine /**/ `Kafka`()",
        "SELECT 1 INTO OUTFILE 'f'",
    ],
)
def test_nobody_may(sql: str) -> None:
    with pytest.raises(QueryError) as failure:
        POLICY.check(Statement.parse(sql.encode()), reader=False)
    assert failure.value.code == 48


def test_external_table_is_only_columns() -> None:
    POLICY.check_structure("a UInt32, b Array(Tuple(x Int8, y String))")
    for structure in (
        "a Int8) ENGINE = File(CSV, '/f'",
        "a Int8 DEFAULT file('f')",
        "a Int8; DROP TABLE t",
        "a 'open",
    ):
        with pytest.raises(QueryError):
            POLICY.check_structure(structure)
