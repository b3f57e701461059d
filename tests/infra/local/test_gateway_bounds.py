"""What clients who stop, ask for too much, or come in crowds cannot do to others."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import lz4.frame
import pytest
import zstandard

from tests.infra.local.plain import Plain, wait_until

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
ENDLESS = b"SELECT repeat('x', 1000) FROM numbers(100000000)"


class Gateway:
    """A gateway of a test's own, with bounds of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        (folder / "password").write_text("secret")
        secret = str(folder / "password")
        where = ["--path", str(folder / "data"), "--port", str(self.port)]
        users = ["--sop-password", secret, "--analyst-password", secret]
        command = [sys.executable, "-m", "infra.local.clickhouse", *where, *users, *options]
        self.process = subprocess.Popen(command, cwd=ROOT)
        self.sop, self.analyst = (Plain.of("127.0.0.1", self.port, name, "secret") for name in ("sop", "analyst"))
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self.process.poll() is None
        try:
            return self.sop.get("SELECT 1")[0] == 200
        except OSError:
            return False

    def peak_bytes(self) -> int:
        """Most memory that the process has held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024

    def stalled(self, user: Plain, body: bytes, *, length: int | None = None, query: str = "") -> socket.socket:
        """A connection that has sent `body`, has announced `length`, and does nothing any more."""
        client = socket.create_connection((user.host, user.port), timeout=120)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        fields = f"Host: x\r\nAuthorization: {user.headers['Authorization']}\r\n"
        head = f"POST /?{query} HTTP/1.1\r\n{fields}Content-Length: {length or len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        return client

    @contextmanager
    def crowd(self, number: int, user: Plain, body: bytes, **about: object) -> Iterator[list[socket.socket]]:
        with ExitStack() as stack:
            yield [stack.enter_context(self.stalled(user, body, **about)) for _ in range(number)]  # type: ignore[arg-type]

    def running(self, like: str) -> int:
        sql = f"SELECT count() FROM system.processes WHERE query LIKE '{like}'"
        return int(self.sop.get(sql)[1])

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Waits long for clients: whoever is answered beside stalled ones needed none of them to give up."""
    made = Gateway(tmp_path_factory.mktemp("patient"), "--patience", "600")
    yield made
    made.close()


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Gives up on clients soon, and allows readers little."""
    bounds = ["--patience", "2", "--reader-memory", str(300 * MIB), "--reader-answer", str(20 * MIB)]
    bounds += ["--reader-disk", str(5 * MIB)]
    made = Gateway(tmp_path_factory.mktemp("brief"), *bounds)
    yield made
    made.close()


def test_readers_who_stop_reading_do_not_hinder_the_owner(patient: Gateway) -> None:
    with patient.crowd(40, patient.analyst, ENDLESS):
        wait_until(lambda: patient.running("SELECT repeat(%") == 8)
        for _ in range(20):
            assert patient.sop.get("SELECT 1") == (200, b"1\n")
    wait_until(lambda: patient.running("SELECT repeat(%") == 0)
    assert patient.analyst.get("SELECT 1") == (200, b"1\n")


def test_sessions_do_not_let_readers_have_more_queries_at_once(patient: Gateway) -> None:
    with ExitStack() as stack:
        for number in range(14):
            query = f"session_id=s{number}"
            stack.enter_context(patient.stalled(patient.analyst, ENDLESS, query=query))
        wait_until(lambda: patient.running("SELECT repeat(%") == 8)
        assert patient.sop.get("SELECT 1") == (200, b"1\n")
        assert patient.running("SELECT repeat(%") == 8
    wait_until(lambda: patient.running("SELECT repeat(%") == 0)


def test_readers_who_stop_in_mid_body_do_not_hinder_the_owner(patient: Gateway) -> None:
    with patient.crowd(40, patient.analyst, b"SELECT", length=100):
        for _ in range(20):
            assert patient.sop.get("SELECT 1") == (200, b"1\n")


def test_strangers_who_stop_in_mid_body_do_not_hinder_the_owner(patient: Gateway) -> None:
    stranger = Plain.of("127.0.0.1", patient.port, "nobody", "x")
    with patient.crowd(40, stranger, b"SELECT", length=100):
        assert patient.sop.get("SELECT 1") == (200, b"1\n")


def test_inserts_that_stop_in_mid_body_hold_no_handle(patient: Gateway) -> None:
    query = f"query={quote('INSERT INTO default.never FORMAT CSV')}"
    with patient.crowd(20, patient.sop, b"1\n", length=100, query=query):
        for _ in range(20):
            assert patient.sop.get("SELECT 1") == (200, b"1\n")


def test_more_requests_than_may_wait_are_refused_and_not_kept(patient: Gateway) -> None:
    with patient.crowd(16 + 256 + 64, patient.analyst, b"SELECT", length=100):
        status, _, headers = patient.analyst.post("", b"SELECT 1")
        assert (status, headers["X-ClickHouse-Exception-Code"]) == (503, "202")
        assert patient.sop.get("SELECT 1") == (200, b"1\n")
    wait_until(lambda: patient.analyst.get("SELECT 1")[0] == 200)


def test_clients_who_stop_are_given_up(brief: Gateway) -> None:
    like = "SELECT repeat(%"
    with brief.crowd(20, brief.analyst, ENDLESS), brief.crowd(40, brief.sop, b"SELECT", length=100):
        assert brief.sop.get("SELECT 1") == (200, b"1\n")
        assert brief.analyst.get("SELECT 1") == (200, b"1\n")
        wait_until(lambda: brief.running(like) == 0)


def test_who_stops_in_mid_body_is_told_so(brief: Gateway) -> None:
    with brief.stalled(brief.analyst, b"SELECT 1", length=100) as client:
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"SOCKET_TIMEOUT" in answer


@pytest.mark.parametrize(
    "sql", ["CREATE TABLE default.{} (a Int8) ENGINE = Memory", "SET max_threads = 2 /* {} */"]
)
def test_many_statements_that_spoil_their_handle_all_get_one(patient: Gateway, sql: str) -> None:
    with ThreadPoolExecutor(30) as threads:
        names = [f"t{uuid.uuid4().hex}" for _ in range(60)]
        answers = list(threads.map(lambda name: patient.sop.post("", sql.format(name).encode())[:2], names))
    assert set(answers) == {(200, b"")}


def test_a_user_s_sessions_are_limited(brief: Gateway) -> None:
    def ask(number: int, options: str = "") -> tuple[int, str | None]:
        status, _, headers = brief.analyst.post(f"session_id=n{number}&session_timeout=3600{options}", b"SELECT 1")
        return status, headers["X-ClickHouse-Exception-Code"]

    for number in range(256):
        assert ask(number) == (200, None)
    assert ask(256) == (503, "700")
    assert brief.sop.post("session_id=n256", b"SELECT 1")[0] == 200
    assert ask(0, "&close_session=1") == (200, None)
    assert ask(256) == (200, None)
    for number in range(1, 257):
        ask(number, "&close_session=1")


def test_a_reader_s_query_that_needs_too_much_memory_fails_and_the_owner_s_does_not(brief: Gateway) -> None:
    sql = b"SELECT length(groupArray(number)) FROM numbers(60000000)"
    status, body, headers = brief.analyst.post("", sql)
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "241"), body
    assert brief.sop.post("", sql, timeout=120)[:2] == (200, b"60000000\n")


def test_what_a_reader_s_query_puts_aside_is_bounded(brief: Gateway) -> None:
    sql = b"SELECT count() FROM (SELECT number FROM numbers(3000000) GROUP BY number)"
    setting = "max_bytes_before_external_group_by=1000000"
    status, body, headers = brief.analyst.post(setting, sql, timeout=120)
    assert (status, headers["X-ClickHouse-Exception-Code"]) == (500, "396"), body
    assert brief.sop.post(setting, sql, timeout=120)[:2] == (200, b"3000000\n")


@pytest.mark.parametrize("where", ["", "wait_end_of_query=1"])
@pytest.mark.parametrize("form", ["TSV", "JSON"])
def test_a_reader_s_answer_has_a_bound(brief: Gateway, where: str, form: str) -> None:
    sql = f"SELECT repeat(toString(number), 20) FROM numbers(1000000) FORMAT {form}".encode()
    status, body, _ = brief.analyst.post(where, sql, timeout=120)
    assert b"TOO_MANY_ROWS_OR_BYTES" in body[-3000:]
    assert (status, body[:5]) == (500, b"Code:") or not (where or form == "JSON")
    for setting in ("max_result_bytes=1000000", "max_threads=2"):  # and the bound is still there after one's own
        assert brief.analyst.post(setting, b"SELECT 1")[0] == 200
        assert b"TOO_MANY_ROWS_OR_BYTES" in brief.analyst.post(where, sql, timeout=120)[1][-3000:]


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("", "JSON"),
        ("wait_end_of_query=1", "CSVWithNames"),
        ("wait_end_of_query=1&enable_http_compression=1", "TSV"),
    ],
)
def test_an_answer_of_any_size_needs_little_memory(patient: Gateway, query: str, form: str) -> None:
    patient.sop.post(query, f"SELECT number FROM numbers(200000) FORMAT {form}".encode())  # what it takes anyway
    before = patient.peak_bytes()
    sql = f"SELECT repeat('x', 100) AS x FROM numbers(5000000) FORMAT {form} -- a remark"
    url = f"http://127.0.0.1:{patient.port}/?{query}"
    request = Request(url, sql.encode(), {**patient.sop.headers, "Accept-Encoding": "gzip"})
    size, decompress = 0, zlib.decompressobj(31)
    with urlopen(request, timeout=120) as answer:  # noqa: S310
        while piece := answer.read(MIB):
            size += len(decompress.decompress(piece) if answer.headers["Content-Encoding"] else piece)
    assert size > 500_000_000
    assert patient.peak_bytes() - before < 250 * MIB


@pytest.mark.parametrize(
    "statement", ["SELECT 1 AS a", "(SELECT 1 AS a)", "FROM (SELECT 1 AS a) SELECT a", "WITH 1 AS a SELECT a"]
)
@pytest.mark.parametrize("ending", ["", ";", " ;; ", " -- remark", " /* x */ ; -- y", " SETTINGS max_threads = 1"])
@pytest.mark.parametrize("form", ["", " FORMAT CSVWithNames", " format `CSVWithNames`"])
def test_an_answer_that_is_waited_for_is_that_of_a_stream(
    patient: Gateway, statement: str, ending: str, form: str
) -> None:
    clauses = ending + form if "SETTINGS" in ending and form else form + ending
    answer = patient.analyst.post(
        "wait_end_of_query=1&default_format=CSVWithNames", (statement + clauses).encode()
    )
    assert answer[:2] == (200, b'"a"\n1\n')
    assert answer[2]["X-ClickHouse-Format"] == "CSVWithNames"


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "lz4": lz4.frame.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_that_is_cut_off_within_its_encoding_is_not_acknowledged(patient: Gateway, encoding: str) -> None:
    table = f"default.t{uuid.uuid4().hex}"
    assert patient.sop.post("", f"CREATE TABLE {table} (a String) ENGINE = Memory".encode())[0] == 200
    rows = b"".join(b"%d\n" % number for number in range(50_000))
    body = ENCODINGS[encoding](rows)
    query = f"query={quote(f'INSERT INTO {table} FORMAT CSV')}"
    for cut in (len(body) // 2, len(body) - 1):
        status, text, _ = patient.sop.post(query, body[:cut], Content_Encoding=encoding)
        assert status == 500, text
        assert b"CANNOT_READ_ALL_DATA" in text
    status, text, _ = patient.sop.post(query, rows, Content_Encoding=encoding)
    assert (status, b"CANNOT_DECOMPRESS" in text) == (500, True)
    assert patient.sop.get(f"SELECT count() FROM {table}") == (200, b"0\n")
    assert patient.sop.post(query, body, Content_Encoding=encoding)[0] == 200
    assert patient.sop.get(f"SELECT count() FROM {table}") == (200, b"50000\n")


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_little_body_that_decodes_to_much_needs_little_memory(patient: Gateway, encoding: str) -> None:
    patient.analyst.post("", ENCODINGS[encoding](b"SELECT 1"), Content_Encoding=encoding)
    before = patient.peak_bytes()
    compress: Any = {"gzip": zlib.compressobj(9, wbits=31), "zstd": zstandard.ZstdCompressor(3).compressobj()}[
        encoding
    ]
    body = b"".join(compress.compress(bytes(16 * MIB)) for _ in range(64)) + compress.flush()
    status, text, _ = patient.analyst.post("", body, timeout=120, Content_Encoding=encoding)
    assert (status, b"longer than" in text) == (400, True)
    assert patient.peak_bytes() - before < 500 * MIB
