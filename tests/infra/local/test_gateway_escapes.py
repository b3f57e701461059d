"""What the analyst tries, over HTTP, to reach the machine's disk, the net or secrets, and does not get."""

from __future__ import annotations

import uuid
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from tests.infra.local.plain import Plain

CANARY = "canary-5d1c07"

# Each is tried as the analyst. {path} is a file that holds the canary, {out} one that does not exist.
STATEMENTS = [
    # functions and table functions, by whatever name
    "SELECT file('{path}')",
    "SELECT FILE ('{path}')",
    "SELECT `file`('{path}')",
    "SELECT /* x */ file /* y */ -- z\n('{path}')",
    "SELECT * FROM file('{path}', 'LineAsString')",
    "SELECT * FROM fileCluster('default', '{path}', 'LineAsString')",
    "SELECT * FROM url('file://{path}', 'LineAsString')",
    "SELECT * FROM filesystem('{path}')",
    r"SELECT `f\x69le`('{path}')",
    r'SELECT "f\x69le"(' + "'{path}')",
    r"SELECT `\x66\x69\x6c\x65`('{path}')",
    r"SELECT `f\Nile`('{path}')",
    r"SELECT `f\151le`('{path}')",
    r"SELECT `f\u0069le`('{path}')",
    r"SELECT * FROM `f\x69le`('{path}', 'LineAsString', 'l String')",
    r"SELECT * FROM `f\ile`('{path}', 'LineAsString', 'l String')",
    "SELECT t.1.file('{path}')",
    "SELECT 1.file('{path}')",
    "SELECT 1_0.file('{path}')",
    # functions without brackets
    "SELECT * APPLY(file) FROM (SELECT '{path}' AS p)",
    "SELECT * APPLY file FROM (SELECT '{path}' AS p)",
    "SELECT COLUMNS('p') APPLY(file) FROM (SELECT '{path}' AS p)",
    "SELECT * REPLACE(file(p) AS p) FROM (SELECT '{path}' AS p)",
    "SELECT arrayMap(file, ['{path}'])",
    "SELECT arrayMap(FILE, ['{path}'])",
    "SELECT arrayMap(file AS f, ['{path}'])",
    "SELECT arrayMap(`file`, ['{path}'])",
    r"SELECT arrayMap(`f\x69le`, ['{path}'])",
    "SELECT arrayFilter(x -> throwIf(1, file(x)), ['{path}'])",
    # SQL out of strings
    "SELECT b FROM values('a Int8, b String ALIAS file(\\'{path}\\')', (1))",
    "SELECT b FROM loop(values('a Int8, b String ALIAS file(\\'{path}\\')', (1))) LIMIT 1",
    "SELECT 1 IN values('a Int8 DEFAULT throwIf(1, file(\\'{path}\\'))', (1))",
    "SELECT b FROM generateRandom('a Int8, b String ALIAS file(\\'{path}\\')') LIMIT 1",
    "SELECT b FROM null('a Int8, b String ALIAS throwIf(1, file(\\'{path}\\'))')",
    "SELECT b FROM fuzzJSON('a Int8, b String ALIAS file(\\'{path}\\')')",
    "SELECT * FROM format(Values, 'l String', '(file(\\'{path}\\'))')",
    "SELECT * FROM format('Values', 'l String', '(file(\\'{path}\\'))')",
    "SELECT * FROM format(concat('Val', 'ues'), 'l String', '(file(\\'{path}\\'))')",
    "SELECT * FROM format(replaceAll('{}Values', '{}', ''), 'l String', '(file(\\'{path}\\'))')",
    "SELECT * FROM format('{}Values' AS x, 'l String', '(file(\\'{path}\\'))')",
    "SELECT * FROM format(JSONEachRow, 'a Int8, b String DEFAULT file(\\'{path}\\')', '{{\"a\":1}}')",
    "SELECT * FROM format(CSV, concat('b String DEFAULT fi', 'le(\\'{path}\\')'), '\\n')",
    "SELECT * FROM eval('SELECT file(\\'{path}\\')') SETTINGS allow_experimental_eval_table_function = 1",
    "SELECT * FROM viewExplain('EXPLAIN', '', (SELECT file('{path}')))",
    "SELECT 1 AS x SETTINGS additional_result_filter = 'throwIf(1, file(\\'{path}\\'))'",
    "SELECT * FROM system.one SETTINGS additional_table_filters = "
    "{{'system.one': 'throwIf(1, file(\\'{path}\\'))'}}",
    "SELECT 1 SETTINGS select = 'file(\\'{path}\\')'",
    "SELECT 1 AS x SETTINGS filter = 'file(\\'{path}\\') = 1'",
    "SELECT 1 AS x SETTINGS max_threads = 1, filter = 'file(\\'{path}\\') = 1'",
    "SELECT 1 AS x SETTINGS optimize_read_in_order, filter = 'file(\\'{path}\\') = 1'",
    "SELECT * FROM (SELECT 1 AS x SETTINGS `filter` = 'file(\\'{path}\\') = 1')",
    "SELECT 1 AS x FORMAT CSV SETTINGS \"filter\" = 'file(\\'{path}\\') = 1'",
    "EXPLAIN SYNTAX SELECT 1 AS x SETTINGS filter = 'file(\\'{path}\\') = 1'",
    "SELECT 1 SETTINGS dialect = 'polyglot', allow_experimental_polyglot_dialect = 1",
    "SET dialect = 'kusto'",
    "SET max_threads = 1, dialect = 'kusto'",
    # files that settings of formats name
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '{path}'",
    "SELECT 1 FORMAT `Template`",
    "SELECT 1 FORMAT Template",
    "SET format_template_row = '{path}'",
    "SELECT 1 FORMAT Protobuf SETTINGS format_schema = '{path}:M'",
    "SELECT 1 FORMAT CSV SETTINGS format_schema = '{path}:M'",
    "SELECT 1 FORMAT CSV SETTINGS output_format_schema = '{out}'",
    "SELECT 1 SETTINGS input_format_record_errors_file_path = '{out}'",
    "SELECT 1 FORMAT AvroConfluent SETTINGS format_avro_schema_registry_url = 'http://127.0.0.1:1'",
    "SELECT formatRow('Template', 1) SETTINGS format_template_row = '{path}'",
    "SELECT 1 SETTINGS format_display_secrets_in_show_and_select = 1",
    # other names of the same files
    "SELECT * FROM `{path}`",
    "SELECT * FROM '{path}'",
    "SELECT * FROM default.`{path}`",
    "SELECT * FROM system.`{path}`",
    "DESCRIBE TABLE file('{path}')",
    "DESCRIBE TABLE file('{path}', 'LineAsString')",
    "DESC file('{path}')",
    "DESCRIBE `{path}`",
    "SHOW CREATE TABLE `{path}`",
    "EXPLAIN SELECT file('{path}')",
    "EXPLAIN QUERY TREE SELECT * FROM file('{path}', 'LineAsString')",
    "EXPLAIN TABLE OVERRIDE mysql('127.0.0.1:1', 'd', 't', 'u', 'p') COLUMNS (a Int8)",
    "SELECT * FROM (EXPLAIN SELECT file('{path}'))",
    "FROM file('{path}', 'LineAsString') SELECT *",
    "FROM file('{path}', 'LineAsString') |> SELECT *",
    "WITH f AS (SELECT * FROM file('{path}', 'LineAsString')) SELECT * FROM f",
    "SELECT 1 IN (SELECT file('{path}'))",
    "SELECT 1 IN file('{path}')",
    "SELECT * FROM view(SELECT file('{path}'))",
    "SELECT * FROM sqlite('{path}', 't')",
    "SELECT * FROM python('open(\"{path}\").read()')",
    "SELECT * FROM executable('{path}', 'TSV', 'a String')",
    "SELECT * FROM icebergLocal('{path}')",
    "SELECT * FROM deltaLakeLocal('{path}')",
    "SELECT * FROM s3('http://127.0.0.1:1/x', NOSIGN)",
    "SELECT * FROM s3Cluster('default', 'http://127.0.0.1:1/x', NOSIGN)",
    "SELECT * FROM gcs('http://127.0.0.1:1/x', NOSIGN)",
    "SELECT * FROM azureBlobStorage('http://127.0.0.1:1/x', 'c', 'b')",
    "SELECT * FROM hdfs('hdfs://127.0.0.1:1/x')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM cluster('default', view(SELECT file('{path}')))",
    "SELECT aiGenerate('x', 'y')",
    # writes
    "SELECT 1 INTO OUTFILE '{out}'",
    "SELECT 1 INTO /* x */ OUTFILE '{out}' APPEND",
    "SHOW TABLES INTO OUTFILE '{out}'",
    "INSERT INTO FUNCTION file('{out}', 'CSV') SELECT 1",
    "WITH x AS (SELECT 1) INSERT INTO FUNCTION file('{out}', 'CSV') SELECT 1",
    "WITH x AS (SELECT 1) INSERT FUNCTION file('{out}', 'CSV') SELECT 1",
    "EXPLAIN SYNTAX INSERT INTO FUNCTION file('{out}', 'CSV') SELECT 1",
    "EXPLAIN PIPELINE INSERT INTO FUNCTION file('{out}', 'CSV') SELECT 1",
    "SELECT 1 PARALLEL WITH INSERT INTO FUNCTION file('{out}', 'CSV') SELECT 1",
    "CREATE TEMPORARY TABLE f (a String) ENGINE = File(CSV, '{path}')",
    "CREATE TABLE f (a String) ENGINE = File(CSV, '{path}')",
    "ATTACH TABLE f FROM '{path}' (a String) ENGINE = File(CSV)",
    "CREATE FUNCTION f AS x -> file(x)",
    "BACKUP DATABASE default TO File('{out}')",
    "RESTORE DATABASE default FROM File('{path}')",
    # several statements
    "SELECT 1; SELECT file('{path}')",
    "SELECT 1;; SELECT file('{path}')",
    "SELECT 1 /*; */; SELECT 1 INTO OUTFILE '{out}'",
    "SELECT $$;$$, file('{path}')",
    "SELECT ‘;’, 1",
    "SELECT 1\x00; SELECT file('{path}')",
    # bounds
    "SET max_memory_usage = 0",
    "SELECT 1 SETTINGS max_memory_usage = 0",
    "SELECT 1 SETTINGS max_result_bytes = 0",
    "SELECT 1 SETTINGS max_result_bytes = DEFAULT",
    "SELECT 1 SETTINGS max_threads = 100000",
    "SELECT 1 SETTINGS max_temporary_data_on_disk_size_for_query = 0",
    "SET readonly = 0",
    "SET allow_python_table_function = 1",
    "SET profile = 'default'",
]  # fmt: skip

# Parameters of the URL beside `SELECT 1`.
PARAMETERS = [
    {"filter": "file('{path}') = 1"},
    {"select": "file('{path}')"},
    {"additional_result_filter": "throwIf(1, file('{path}'))"},
    {"format_template_row": "{path}", "default_format": "Template"},
    {"format_template_resultset": "{path}", "default_format": "Template"},
    {"format_schema": "{path}:M", "default_format": "Protobuf"},
    {"output_format_schema": "{out}"},
    {"default_format": "Template"},
    {"default_format": "TSV; SELECT 42 INTO OUTFILE '{out}'"},
    {"default_format": "TSV INTO OUTFILE '{out}'"},
    {"default_format": "DataFrame"},
    {"default_format": "ArrowTable"},
    {"dialect": "kusto"},
    {"max_memory_usage": "0"},
    {"max_threads": "1, readonly = 0"},
    {"max_result_bytes": "0"},
    {"max_result_bytes": "nan"},
    {"max_threads = 1; SELECT 1 INTO OUTFILE '{out}'; SET max_threads": "1"},
    {"database": "default`; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"database": "default\\`; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"database": "{path}"},
    {"user_files_path": "/"},
    {"readonly": "0"},
    {"profile": "default"},
    {"session_id": "x", "session_timeout": "nan"},
    {"session_id": "x", "session_timeout": "inf"},
    {"session_id": "x", "session_timeout": "-1"},
    {"query_id": "a\r\nX-Canary: " + CANARY},
    {"compress": "1"},
]  # fmt: skip

# Parameters whose text may hold anything, and is only text.
HARMLESS = [
    {"session_id": "x'; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"quota_key": "x'; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"log_comment": "x'; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"query_id": "x'; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"param_a": "x'; SELECT 1 INTO OUTFILE '{out}'; --"},
    {"param_a = 1; SELECT 1 INTO OUTFILE '{out}'; SET param_b": "x"},
    {"output_format_json_quote_64bit_integers": "1"},
]

# How an external table `e`, with a line of text, is described.
TABLES = [
    {"e_format": "TSV; SELECT 42 INTO OUTFILE '{out}'", "e_structure": "a String"},
    {"e_format": "TSV\n; SELECT file('{path}')", "e_structure": "a String"},
    {"e_format": "TSV SETTINGS format_schema = '{path}'", "e_structure": "a String"},
    {"e_format": "Values", "e_structure": "a String"},
    {"e_format": "Template", "e_structure": "a String", "format_template_row": "{path}"},
    {"e_format": "Regexp", "e_structure": "a String"},
    {"e_format": "Protobuf", "e_structure": "a String", "format_schema": "{path}:M"},
    {"e_format": "Nonsense", "e_structure": "a String"},
    {"e_structure": "a String, b String DEFAULT file('{path}')"},
    {"e_structure": "a String ALIAS file('{path}')"},
    {"e_structure": "a String, b String MATERIALIZED arrayMap(file, ['{path}'])[1]"},
    {"e_structure": r"a String, b String DEFAULT `f\x69le`('{path}')"},
    {"e_structure": "a String DEFAULT 1"},
    {"e_structure": "a String) ENGINE = File(CSV, '{path}'"},
    {"e_structure": "a String); SELECT 42 INTO OUTFILE '{out}'; SELECT (1"},
    {"e_structure": "a String) AS SELECT file('{path}') AS (a"},
    {"e_structure": "a $$x$$"},
    {"e_types": "String DEFAULT file('{path}')"},
    {"e_types": "String) ENGINE = File(CSV, '{path}'"},
    {"e_types": "'open"},
]


# Tried with a parameter `f` that holds the word `file`: in the URL, in a form, in a session, among the settings.
NAMED = [
    "SELECT arrayMap({f:Identifier}, ['{path}'])",
    "SELECT arrayMap({ f /* x */ : -- y\n Identifier }, ['{path}'])",
    "SELECT arrayMap({f:`Identifier`}, ['{path}'])",
    "SELECT arrayMap({f:identifier}, ['{path}'])",
    "SELECT * APPLY {f:Identifier} FROM (SELECT '{path}' AS p)",
    "SELECT * APPLY({f:Identifier}) FROM (SELECT '{path}' AS p)",
    "SELECT {f:Identifier}('{path}')",
    "SELECT * FROM {f:Identifier}('{path}', 'LineAsString')",
    "WITH {f:Identifier} AS g SELECT arrayMap(g, ['{path}'])",
    "SELECT arrayMap({f:String}, ['{path}'])",
    "SELECT {f:String}('{path}')",
]

# Parameters that are values, beside `f`, and what is not one.
VALUES = {
    "SELECT {f:String}": b"file\n",
    "SELECT arrayMap(x -> concat(x, {f:String}), ['a'])": b"['afile']\n",
    "SELECT map({f:String}, 1)": b"{'file':1}\n",
    "SELECT 3 AS identifier, 0 ? 2 : identifier": b"3\t3\n",
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A file with the canary, and the name of one that nobody is to make."""
    canary = tmp_path / "canary"
    canary.write_text(CANARY + "\n")
    return {"path": str(canary), "out": str(tmp_path / "out")}


def filled(text: str, files: dict[str, str]) -> str:
    return (
        text.replace("{path}", files["path"]).replace("{out}", files["out"]).replace("{{", "{").replace("}}", "}")
    )


def query_of(parameters: dict[str, str], files: dict[str, str]) -> str:
    return urlencode({filled(name, files): filled(value, files) for name, value in parameters.items()})


def form(name: str, data: str, edge: str = "edge") -> bytes:
    head = f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="x"\r\n\r\n'
    return f"{head}{data}\r\n--{edge}--\r\n".encode()


def assert_nothing_came_out(body: bytes, headers: object, files: dict[str, str]) -> None:
    assert CANARY.encode() not in body
    assert CANARY not in str(headers).lower().replace(files["path"].lower(), "")
    assert not Path(files["out"]).exists()


@pytest.mark.parametrize("sql", STATEMENTS)
def test_no_statement_of_the_analyst_s_leaves_the_engine(
    plain_analyst: Plain, files: dict[str, str], sql: str
) -> None:
    for where in ("", f"session_id={uuid.uuid4().hex}", "wait_end_of_query=1"):
        status, body, headers = plain_analyst.post(where, filled(sql, files).encode())
        assert status != 200, body
        assert_nothing_came_out(body, headers, files)
    status, body = plain_analyst.get(filled(sql, files))
    assert status != 200
    assert_nothing_came_out(body, "", files)


def test_errors_of_others_do_not_show_what_files_hold(
    plain: Plain, plain_analyst: Plain, files: dict[str, str]
) -> None:
    for sql in STATEMENTS:
        plain_analyst.post("", filled(sql, files).encode())
    for table in ("errors", "processes", "warnings"):
        assert CANARY.encode() not in plain_analyst.post("", f"SELECT * FROM system.{table}".encode())[1]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_no_parameter_of_the_url_leaves_the_engine(
    plain_analyst: Plain, files: dict[str, str], parameters: dict[str, str]
) -> None:
    query = query_of(parameters, files)
    for body in (b"SELECT 1 AS x", b"SELECT toString(number) AS x FROM numbers(3) FORMAT CSV"):
        if "default_format" in parameters and b"FORMAT" in body:
            continue  # then it is not asked for
        status, answer, headers = plain_analyst.post(query, body)
        assert status != 200, answer
        assert_nothing_came_out(answer, headers, files)
        assert "X-Canary" not in headers


@pytest.mark.parametrize("parameters", HARMLESS, ids=str)
def test_text_of_the_url_stays_text(
    plain_analyst: Plain, files: dict[str, str], parameters: dict[str, str]
) -> None:
    status, body, headers = plain_analyst.post(query_of(parameters, files), b"SELECT 1")
    assert (status, body) == (200, b"1\n")
    assert_nothing_came_out(body, headers, files)


@pytest.mark.parametrize("sql", NAMED)
def test_no_parameter_becomes_a_name(plain_analyst: Plain, files: dict[str, str], sql: str) -> None:
    session, text = f"session_id={uuid.uuid4().hex}", filled(sql, files)
    assert plain_analyst.post(session, b"SET param_f = 'file'")[0] == 200
    kind = "multipart/form-data; boundary=edge"
    for status, body, headers in (
        plain_analyst.post("param_f=file", text.encode()),
        plain_analyst.post("param_f=file&wait_end_of_query=1", text.encode()),
        plain_analyst.post(f"query={quote(text)}", form("param_f", "file"), Content_Type=kind),
        plain_analyst.post(session, text.encode()),
        plain_analyst.post("", f"{text} SETTINGS param_f = 'file'".encode()),
    ):
        assert status != 200, body
        assert_nothing_came_out(body, headers, files)


@pytest.mark.parametrize("sql", VALUES)
def test_parameters_are_values(plain_analyst: Plain, sql: str) -> None:
    assert plain_analyst.post("param_f=file", sql.encode())[:2] == (200, VALUES[sql])


@pytest.mark.parametrize("parameters", TABLES, ids=str)
def test_no_description_of_an_external_table_leaves_the_engine(
    plain_analyst: Plain, files: dict[str, str], parameters: dict[str, str]
) -> None:
    query = f"query={quote('SELECT * FROM e')}&{query_of(parameters, files)}"
    data = f"(file('{files['path']}'))" if parameters.get("e_format") == "Values" else "x"
    answer = plain_analyst.post(query, form("e", data), Content_Type="multipart/form-data; boundary=edge")
    assert answer[0] != 200, answer[1]
    assert_nothing_came_out(answer[1], answer[2], files)


@pytest.mark.parametrize("name", ["e; SELECT 1 INTO OUTFILE '{out}'", "e`", "e (a String) --", "é", "", "x\\x41"])
def test_no_name_of_an_external_table_is_sql(plain_analyst: Plain, files: dict[str, str], name: str) -> None:
    filled_name = filled(name, files)
    query = urlencode({"query": "SELECT 1", f"{filled_name}_structure": "a String"})
    status, body, headers = plain_analyst.post(
        query, form(filled_name, "x"), Content_Type="multipart/form-data; boundary=edge"
    )
    assert status != 200
    assert_nothing_came_out(body, headers, files)


def test_the_owner_s_format_is_a_name_too(plain: Plain, files: dict[str, str]) -> None:
    parameters = {"e_format": "TSV; SELECT 42 INTO OUTFILE '{out}'", "e_structure": "a String"}
    query = f"query={quote('SELECT * FROM e')}&{query_of(parameters, files)}"
    for query_, body, kind in (
        (query, form("e", "x"), "multipart/form-data; boundary=edge"),
        ("", b"INSERT INTO default.x FORMAT Nonsense\n1", "text/plain"),
        ("default_format=Nonsense", b"SELECT 1", "text/plain"),
        ("", b"SELECT 1 FORMAT Nonsense", "text/plain"),
    ):
        status, answer, headers = plain.post(query_, body, Content_Type=kind)
        assert (status, headers["X-ClickHouse-Exception-Code"]) == (404, "73"), answer
    header_asked = plain.post("", b"SELECT 1", X_ClickHouse_Format="DataFrame")
    assert header_asked[2]["X-ClickHouse-Exception-Code"] == "73"
    assert not Path(files["out"]).exists()
