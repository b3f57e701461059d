"""Errors as ClickHouse's HTTP interface reports them: a code, a text, an HTTP status."""

from __future__ import annotations

import re

# ClickHouse's own codes (src/Common/ErrorCodes.cpp), those the gateway raises itself.
CANNOT_READ_ALL_DATA = 33
BAD_ARGUMENTS = 36
NOT_IMPLEMENTED = 48
SYNTAX_ERROR = 62
UNKNOWN_FORMAT = 73
UNKNOWN_SETTING = 115
READONLY = 164
TOO_MANY_SIMULTANEOUS_QUERIES = 202
SOCKET_TIMEOUT = 209
NETWORK_ERROR = 210
QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING = 216
CANNOT_DECOMPRESS = 271
SESSION_NOT_FOUND = 372
SESSION_IS_LOCKED = 373
TOO_MANY_ROWS_OR_BYTES = 396
ACCESS_DENIED = 497
AUTHENTICATION_FAILED = 516
USER_SESSION_LIMIT_EXCEEDED = 700
UNKNOWN_EXCEPTION = 1002

# As its HTTP handler maps them; all others are 500.
_STATUS = {
    6: 400, 27: 400, 36: 400, 47: 400, 48: 501, 53: 400, 60: 404, 62: 400, 70: 400, 73: 404, 81: 404, 115: 400,
    159: 408, 164: 403, 202: 503, 209: 408, 394: 499, 497: 403, 516: 403, 700: 503,
}  # fmt: skip

_OURS = re.compile(r"\s*INTO OUTFILE '[^']*\.inserts/\w+'( FORMAT \w+)?")
"""What the gateway adds to a query, and its user did not write."""


class QueryError(Exception):
    """A query fails with ClickHouse's error `code`; `name` is the code's name, as clients look for it."""

    def __init__(self, code: int, message: str, name: str) -> None:
        super().__init__(f"Code: {code}. DB::Exception: {message}. ({name})")
        self.code = code


def describe(error: Exception) -> tuple[int, str]:
    """Return code and text of an error, be it the gateway's or the engine's."""
    if isinstance(error, QueryError):
        return error.code, str(error)
    text = _OURS.sub("", _with_advice(str(error)))
    match = re.search(r"Code: (\d+)\. .*", text, re.DOTALL)
    if match:
        return int(match[1]), match[0].strip()
    return (
        UNKNOWN_EXCEPTION,
        f"Code: {UNKNOWN_EXCEPTION}. DB::Exception: {text or type(error).__name__}. (UNKNOWN_EXCEPTION)",
    )


def _with_advice(text: str) -> str:
    """The engine's text, and what to do about a table that only a server has."""
    missing = re.search(r"'system\.(\w*_log|zookeeper)'.*\(UNKNOWN_TABLE\)", text, re.DOTALL)
    if missing is None:
        return text
    why = "keeps no logs" if missing[1].endswith("_log") else "has none"
    advice = f"The embedded engine {why}; a ClickHouse server has system.{missing[1]}."
    return text.replace("(UNKNOWN_TABLE)", f"{advice} (UNKNOWN_TABLE)")


def http_status(code: int) -> int:
    """Return the HTTP status for an error code."""
    return _STATUS.get(code, 500)
