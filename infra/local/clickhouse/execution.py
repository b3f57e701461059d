"""One query from its body to its answer, in a thread of its own."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import structlog

from infra.local.clickhouse.answer_file import bounded
from infra.local.clickhouse.compression import Encoder, decoded
from infra.local.clickhouse.engine import Engine, too_many
from infra.local.clickhouse.errors import (
    READONLY,
    SYNTAX_ERROR,
    QueryError,
    describe,
    http_status,
)
from infra.local.clickhouse.exchange import DisconnectedError, Exchange
from infra.local.clickhouse.handle import Handle, identifier, literal
from infra.local.clickhouse.policy import Policy
from infra.local.clickhouse.request import ExternalTable, Request, User
from infra.local.clickhouse.running import Running
from infra.local.clickhouse.settings import ReaderSettings
from infra.local.clickhouse.statement import IncompleteError, InsertHeader, Statement, insert_header

# Formats whose output is the sum of its blocks' outputs; others have a head or a foot and are made whole.
_STREAMED = frozenset({"native", "tabseparated", "tsv", "csv", "rowbinary", "jsoneachrow"})

# A query's text; an INSERT's data in a format are not counted.
_LONGEST_QUERY_BYTES = 64 << 20

# Of a file that is sent.
_PIECE_BYTES = 1 << 20

# Seconds that a request may wait for a thread.
_WAIT_FOR_THREAD_SECONDS = 60.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Service:
    """What all queries share. `database` is the current one of who names none, if it exists."""

    engine: Engine
    users: Mapping[str, User]
    database: str
    running: Running = field(default_factory=Running)

    @cached_property
    def policy(self) -> Policy:
        """The rules for this engine."""
        settings = ReaderSettings(self.engine.settings, self.engine.bounds.answer_bytes)
        return Policy(self.engine.table_functions, settings)


@dataclass(frozen=True)
class _Answer:
    """What is still to send: everything, or the end of a stream that has started (`status` 0).

    A body in a file is sent as the encoder makes it.
    """

    status: int
    body: bytes | Path
    headers: list[tuple[str, str]] = field(default_factory=list)


class Execution:
    """Runs one request; `run` never raises for what a client did."""

    def __init__(self, service: Service, request: Request, exchange: Exchange) -> None:
        self._service, self._request, self._exchange = service, request, exchange
        self._policy, self._formats = service.policy, service.engine.formats
        self._encoder = Encoder(request.accept_encoding)
        self._tag = uuid.uuid4().hex[:16]
        asked = request.url.get("query_id", "")
        self._query_id = asked if asked and asked.isprintable() else str(uuid.uuid4())
        self._begun = time.perf_counter()
        self._files = ExitStack()

    def run(self) -> None:
        """Answer the request."""
        with self._files:
            self._run()

    def _run(self) -> None:
        try:
            try:
                answer = self._perform()
            except DisconnectedError:
                return
            except Exception as error:  # noqa: BLE001 - the client is told, whatever it is
                self._exchange.drain()
                answer = self._failure(error)
            self._finish(answer)
        except DisconnectedError:
            return

    def _perform(self) -> _Answer:
        if time.perf_counter() - self._begun > _WAIT_FOR_THREAD_SECONDS:
            raise too_many()
        user = self._request.user(self._service.users)
        self._request.refuse_what_is_missing()
        body = self._body()
        if self._request.is_multipart:
            self._request.read_form(b"".join(_bounded(body)))
            body = iter(())
        text, header = self._split(body)
        statement = None if header else Statement.parse(text)
        reads_only = user.reader or self._request.method != "POST"
        if statement:
            self._policy.check(statement, reader=reads_only)
        elif reads_only:
            raise QueryError(READONLY, "Cannot execute query in readonly mode", "READONLY")
        header = header and replace(header, format=self._formats.of_input(header.format, reader=False))
        settings = self._request.settings(self._service.engine.settings)
        if user.reader:
            self._policy.check_settings(settings)
        tables = self._request.external_tables()
        for table in tables:
            self._policy.check_structure(table.structure)
            self._formats.of_input(table.format, reader=user.reader)
        output = self._output(statement, user) if statement else "Null"
        data = self._spooled(chain([text[header.data_start :]], body)) if header else Path()
        with (
            self._service.engine.room(reader=user.reader),
            self._handle(user) as handle,
            self._service.running.query(self._query_id, user.name, handle.tag),
            self._prepared(handle, settings, tables),
        ):
            # The handle is back before the last byte goes out: the client may use its session again at once.
            if header:
                return self._whole(b"", self._store(handle, header, data))
            assert statement is not None  # noqa: S101
            try:
                with self._exchange.cancellable(lambda: self._service.engine.cancel(handle)):
                    return self._query(handle, statement, output)
            finally:
                if statement.keyword in ("set", "use", "create", "drop") and not self._request.url.get(
                    "session_id"
                ):
                    handle.spoilt = True  # what it set, or made for the session, is not for the next client
                if statement.keyword == "use":
                    handle.database = ""

    def _body(self) -> Iterator[bytes]:
        return decoded(self._request.headers.get("content-encoding", ""), iter(self._exchange.read, None))

    def _split(self, body: Iterator[bytes]) -> tuple[bytes, InsertHeader | None]:
        """Read until it is clear whether this is an INSERT with data; return the text so far and its header."""
        text = self._request.query + b"\n" if self._request.query else b""
        pieces = _bounded(body)
        while True:
            try:
                header = insert_header(text, whole=False)
            except IncompleteError:
                piece = next(pieces, None)
                if piece is None:
                    return text, insert_header(text, whole=True)
                text += piece
            else:
                return (text, header) if header else (text + b"".join(pieces), None)

    def _handle(self, user: User) -> AbstractContextManager[Handle]:
        engine, name = self._service.engine, self._request.url.get("session_id")
        if name:
            return engine.session(
                user.name,
                name,
                reader=user.reader,
                timeout=self._request.session_timeout,
                known=self._request.is_on("session_check"),
                ends=self._request.is_on("close_session"),
            )
        return engine.pooled(reader=user.reader)

    @contextmanager
    def _prepared(
        self, handle: Handle, settings: Mapping[str, str], tables: Iterable[ExternalTable]
    ) -> Iterator[None]:
        """Give the handle the request's database, settings and tables, and take the latter two away after it."""
        undo: list[str] = []
        try:
            if self._request.database:
                handle.use(self._request.database)
            elif handle.database is None or not self._request.url.get("session_id"):
                handle.use_default(self._service.database)
            if settings:
                undo.append(self._former(handle, settings))
                handle.run("SET " + ", ".join(f"{name} = {literal(value)}" for name, value in settings.items()))
            for table in tables:
                handle.run(f"CREATE TEMPORARY TABLE {identifier(table.name)} ({table.structure})")
                undo.append(f"DROP TEMPORARY TABLE {identifier(table.name)}")
                header = InsertHeader(f"INSERT INTO {identifier(table.name)}", "", table.format, 0)
                with self._service.engine.scratch_file() as path:
                    path.write_bytes(table.data)
                    self._store(handle, header, path)
            yield
        finally:
            for statement in reversed(undo):
                try:
                    handle.run(statement)
                except Exception:  # noqa: BLE001 - the query's own result matters more
                    handle.spoilt = True
                    _log.warning("handle_not_restored", exc_info=True)

    def _former(self, handle: Handle, settings: Mapping[str, str]) -> str:
        """Return the statement that sets the settings back: in a session some were changed before."""
        former = handle.base
        if self._request.url.get("session_id"):
            names = ", ".join(literal(name) for name in settings)
            rows = handle.run(f"SELECT name, value FROM system.settings WHERE changed AND name IN ({names})")  # noqa: S608
            former = {name: literal(value) for name, value in rows}
        return "SET " + ", ".join(f"{name} = {former.get(name, 'DEFAULT')}" for name in settings)

    def _spooled(self, data: Iterable[bytes]) -> Path:
        """Put data in a file that lasts as long as the request."""
        path = self._files.enter_context(self._service.engine.scratch_file())
        with path.open("wb") as file:
            file.writelines(data)
        return path

    def _store(self, handle: Handle, header: InsertHeader, path: Path) -> dict[str, int]:
        """Insert the data in a file; return what was written.

        By way of a file: the engine's own insert from a stream reports success once the data are parsed, whether
        or not they could then be stored. And no handle waits for a client that sends slowly.
        """
        with self._exchange.cancellable(lambda: self._service.engine.cancel(handle)):
            result = handle.query(header.from_file(literal(str(path))), "Null")
        return {"written_rows": result.rows_read(), "written_bytes": result.bytes_read()}

    def _output(self, statement: Statement, user: User) -> str:
        """The name of the format to answer in."""
        asked = self._request.headers.get("x-clickhouse-format") or self._request.url.get("default_format")
        return self._formats.of_output(statement.format or asked or "TabSeparated", reader=user.reader)

    def _query(self, handle: Handle, statement: Statement, wanted: str) -> _Answer:
        encoding = [("Content-Encoding", self._encoder.name)] if self._encoder.name else []
        headers = [("X-ClickHouse-Format", wanted), ("Content-Type", "application/octet-stream")]
        if statement.is_select:
            if wanted.lower() in _STREAMED and not self._request.is_on("wait_end_of_query"):
                return self._stream(handle, statement, wanted, [*headers, *encoding])
            return self._waited(handle, statement, wanted, headers)
        sql = self._service.running.translated(statement)
        result = handle.query(sql, wanted, self._request.parameters)
        counts = {"read_rows": result.rows_read(), "read_bytes": result.bytes_read()}
        body = bytes(result.bytes() or b"")
        if not body:
            return self._whole(b"", counts, headers)
        return self._whole(self._encoder.encode(body) + self._encoder.finish(), counts, [*headers, *encoding])

    def _waited(
        self, handle: Handle, statement: Statement, format_: str, headers: list[tuple[str, str]]
    ) -> _Answer:
        """The whole answer in a file: the engine writes it there as it comes, and memory holds none of it."""
        path = self._files.enter_context(self._service.engine.scratch_file())
        sql = statement.into_file(literal(str(path)), format_)
        most = self._service.engine.bounds.answer_bytes if handle.reader else None
        with bounded(path, most, lambda: self._service.engine.cancel(handle)):
            result = handle.query(sql, "Null", self._request.parameters)
        counts = {"read_rows": result.rows_read(), "read_bytes": result.bytes_read()}
        size = path.stat().st_size if path.exists() else 0
        if not size:
            return self._whole(b"", counts, headers)
        encoding = [("Content-Encoding", self._encoder.name)] if self._encoder.name else []
        return self._whole(path, counts, [*headers, *encoding])

    def _stream(
        self, handle: Handle, statement: Statement, format_: str, headers: list[tuple[str, str]]
    ) -> _Answer:
        stream = handle.connection.send_query(statement.sql, format_, params=self._request.parameters)
        try:
            for block in stream:
                if self._exchange.gone.is_set():
                    raise DisconnectedError
                data = self._encoder.encode(block.bytes())
                if not self._exchange.started:
                    self._exchange.start(200, [*self._common(), *headers])
                if data:
                    self._exchange.send(data, more=True)
        except BaseException:
            stream.cancel()
            raise
        stream.close()
        if not self._exchange.started:
            self._exchange.start(200, [*self._common(), *headers])
        return _Answer(0, self._encoder.finish())

    def _failure(self, error: Exception) -> _Answer:
        code, text = describe(error)
        message = text.encode() + b"\n"
        if not self._exchange.started:
            headers = [("X-ClickHouse-Exception-Code", str(code)), ("Content-Type", "text/plain; charset=UTF-8")]
            if self._exchange.body_is_left:
                headers.append(("Connection", "close"))
            return _Answer(
                http_status(code), message, [*self._common(), *headers, ("Content-Length", str(len(message)))]
            )
        # The status is out already. This is the server's own form, by which clients tell an error from data.
        tag, mark = self._tag.encode(), b"__exception__\r\n"
        tail = b"\r\n" + mark + tag + b"\r\n" + message + b"%d " % len(message) + tag + b"\r\n" + mark
        return _Answer(0, self._encoder.encode(tail) + self._encoder.finish())

    def _whole(
        self, body: bytes | Path, counts: Mapping[str, int], headers: list[tuple[str, str]] | None = None
    ) -> _Answer:
        names = (
            "read_rows",
            "read_bytes",
            "written_rows",
            "written_bytes",
            "total_rows_to_read",
            "result_rows",
            "result_bytes",
        )
        summary = {name: str(counts.get(name, 0)) for name in names}
        summary["elapsed_ns"] = str(int((time.perf_counter() - self._begun) * 1e9))
        about = [("X-ClickHouse-Summary", json.dumps(summary))]
        if isinstance(body, bytes):
            about.append(("Content-Length", str(len(body))))
        elif self._encoder.name is None:
            about.append(("Content-Length", str(body.stat().st_size)))
        if self._request.is_on("send_progress_in_http_headers"):
            about.append(("X-ClickHouse-Progress", json.dumps(summary)))
        return _Answer(200, body, [*self._common(), *(headers or []), *about])

    def _common(self) -> list[tuple[str, str]]:
        return [
            ("X-ClickHouse-Query-Id", self._query_id),
            ("X-ClickHouse-Timezone", self._service.engine.timezone),
            ("X-ClickHouse-Server-Display-Name", "sop"),
            ("X-ClickHouse-Exception-Tag", self._tag),
        ]

    def _finish(self, answer: _Answer) -> None:
        if answer.status:
            self._exchange.start(answer.status, answer.headers)
        if isinstance(answer.body, bytes):
            self._exchange.send(answer.body, more=False)
            return
        with answer.body.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                if data := self._encoder.encode(piece):
                    self._exchange.send(data, more=True)
        self._exchange.send(self._encoder.finish(), more=False)


def _bounded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pass on the pieces of a query's text.

    Raises:
        QueryError: it is too long.
    """
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > _LONGEST_QUERY_BYTES:
            message = f"The query is longer than {_LONGEST_QUERY_BYTES} bytes; send data as INSERT … FORMAT"
            raise QueryError(SYNTAX_ERROR, message, "SYNTAX_ERROR")
        yield piece
