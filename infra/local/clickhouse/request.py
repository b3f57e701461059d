"""An HTTP request as ClickHouse means it: user, settings, parameters, query, external tables."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.parser import BytesParser
from urllib.parse import parse_qsl

from infra.local.clickhouse.errors import (
    AUTHENTICATION_FAILED,
    BAD_ARGUMENTS,
    NOT_IMPLEMENTED,
    UNKNOWN_SETTING,
    QueryError,
)
from infra.local.clickhouse.harm import no_roles
from infra.local.clickhouse.tokens import tokenize

# Parameters of the URL that are no settings of the query.
_TRANSPORT = frozenset({
    "buffer_size", "client_protocol_version", "close_session", "compress", "database", "decompress",
    "default_format", "enable_http_compression", "http_headers_progress_interval_ms",
    "http_zlib_compression_level", "password", "query",
    "query_id", "quota_key", "role", "send_progress_in_http_headers", "session_check",
    "session_id", "session_timeout", "stacktrace", "user", "wait_end_of_query",
})  # fmt: skip
# There is no query_log to see it in, and the gateway finds its own queries by it.
_IGNORED = frozenset({"log_comment"})
_NAME = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class User:
    """Someone who may connect; a reader may only read."""

    name: str
    password: str = field(repr=False)
    reader: bool


@dataclass(frozen=True)
class ExternalTable:
    """Data that came with the request, to be queried as a temporary table."""

    name: str
    structure: str
    format: str
    data: bytes


class Request:
    """One request to the gateway."""

    def __init__(self, method: str, query_string: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        self.url = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
        self.query = self.url.get("query", "").encode()
        self._files: dict[str, bytes] = {}

    @property
    def is_multipart(self) -> bool:
        """Whether the body is a form with query, parameters or external tables."""
        return self.headers.get("content-type", "").startswith("multipart/form-data")

    @property
    def database(self) -> str | None:
        """The database asked for, if any."""
        return self.url.get("database") or self.headers.get("x-clickhouse-database")

    @property
    def parameters(self) -> dict[str, str]:
        """The bound parameters of the query."""
        return {name[6:]: value for name, value in self.url.items() if name.startswith("param_")}

    @property
    def session_timeout(self) -> float:
        """How long the session lives without use, in seconds.

        Raises:
            QueryError: it is no number, or none of seconds.
        """
        try:
            seconds = float(self.url.get("session_timeout", "60"))
        except ValueError:
            seconds = math.nan
        if not (math.isfinite(seconds) and seconds >= 0):
            raise QueryError(BAD_ARGUMENTS, "session_timeout is a number of seconds", "BAD_ARGUMENTS")
        return seconds

    def refuse_what_is_missing(self) -> None:
        """Refuse what would change the answer and cannot be had.

        Raises:
            QueryError: the request asks for a role, or for blocks of the native protocol; or its query_id is none.
        """
        if not self.url.get("query_id", "").isprintable():
            raise QueryError(BAD_ARGUMENTS, "query_id has characters that are no text", "BAD_ARGUMENTS")
        if self.url.get("role"):
            raise no_roles()
        for name, instead in (("compress", "Accept-Encoding"), ("decompress", "Content-Encoding")):
            if self.url.get(name, "0") not in ("0", "false"):
                message = f"{name}=1 (blocks of the native protocol) is not available here; use {instead}"
                raise QueryError(NOT_IMPLEMENTED, message, "NOT_IMPLEMENTED")

    def is_on(self, name: str) -> bool:
        """Whether a switch in the URL is on."""
        return self.url.get(name, "0") in ("1", "true")

    @property
    def accept_encoding(self) -> str:
        """The encodings to choose from for the response."""
        wanted = self.url.get("enable_http_compression") == "1"
        return self.headers.get("accept-encoding", "") if wanted else ""

    def user(self, users: Mapping[str, User]) -> User:
        """Return who sent the request.

        Raises:
            QueryError: name or password are wrong; the message does not say which.
        """
        name = self.headers.get("x-clickhouse-user") or self.url.get("user") or "default"
        password = self.headers.get("x-clickhouse-key") or self.url.get("password", "")
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                name = ""
        user = users.get(name)
        expected = user.password if user else ""
        same = hmac.compare_digest(expected.encode(), password.encode())  # in a time that tells nothing
        if user is None or not same:
            message = f"{name}: Authentication failed: password is incorrect, or there is no user with such name"
            raise QueryError(AUTHENTICATION_FAILED, message, "AUTHENTICATION_FAILED")
        return user

    def read_form(self, body: bytes) -> None:
        """Take query, parameters and files from a multipart body."""
        head = b"Content-Type: " + self.headers["content-type"].encode("latin-1") + b"\r\n\r\n"
        form = BytesParser().parsebytes(head + body)
        if not form.is_multipart():
            raise QueryError(BAD_ARGUMENTS, "The body is not the form that Content-Type says", "BAD_ARGUMENTS")
        for part in form.walk():
            name = part.get_param("name", header="content-disposition")
            data = part.get_payload(decode=True)
            if not isinstance(name, str) or not isinstance(data, bytes):
                continue
            if name == "query":
                self.query = data
            elif name.startswith("param_"):
                self.url[name] = data.decode()
            else:
                self._files[name] = data

    def settings(self, known: Iterable[str]) -> dict[str, str]:
        """Return the query's settings.

        Raises:
            QueryError: one is not among the `known`.
        """
        about_files = {f"{name}_{suffix}" for name in self._files for suffix in ("structure", "format", "types")}
        found = {
            name: value
            for name, value in self.url.items()
            if name not in _TRANSPORT | _IGNORED and name not in about_files and not name.startswith("param_")
        }
        for name in found:
            if name not in known:
                message = f"Setting {name} is neither a builtin setting nor a parameter of the HTTP interface"
                raise QueryError(UNKNOWN_SETTING, message, "UNKNOWN_SETTING")
        return found

    def external_tables(self) -> list[ExternalTable]:
        """Return the tables that came in the form.

        Raises:
            QueryError: one has no proper name or no structure.
        """
        tables = []
        for name, data in self._files.items():
            types = self.url.get(f"{name}_types", "")
            structure = self.url.get(f"{name}_structure", "") or _numbered(types)
            if not _NAME.fullmatch(name) or not structure:
                needs = f"a name of letters, and {name}_structure or {name}_types"
                message = f"External table {name!r} needs {needs}"
                raise QueryError(BAD_ARGUMENTS, message, "BAD_ARGUMENTS")
            tables.append(ExternalTable(name, structure, self.url.get(f"{name}_format", "TabSeparated"), data))
        return tables


def _numbered(types: str) -> str:
    """The structure of columns `_1`, `_2`, ... of the given types."""
    parts, depth, first = [], 0, 0
    text = types.encode()
    for token in tokenize(text):
        depth += token.is_mark(b"(") - token.is_mark(b")")
        if depth == 0 and token.is_mark(b","):
            parts.append(text[first : token.start])
            first = token.end
    parts.append(text[first:])
    return ", ".join(f"_{n} {part.decode().strip()}" for n, part in enumerate(parts, 1)) if types else ""
