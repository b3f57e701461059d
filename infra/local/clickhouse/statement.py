"""What a statement is: the header of an INSERT with data, its first keyword, its FORMAT clause."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from infra.local.clickhouse.errors import SYNTAX_ERROR, UNKNOWN_FORMAT, QueryError
from infra.local.clickhouse.tokens import Kind, Token, UnterminatedError, tokenize

_PLAIN = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True)
class InsertHeader:
    """`INSERT INTO … SETTINGS … FORMAT x` and where its data begin.

    Attributes:
        sql: the text before SETTINGS and FORMAT.
        settings: the SETTINGS clause, keyword and all, or nothing.
        format: the format's name.
        data_start: byte of the text at which the data begin.
    """

    sql: str
    settings: str
    format: str
    data_start: int

    def from_file(self, path: str) -> str:
        """Return the statement that reads the data from a file; `path` is a quoted literal.

        Raises:
            QueryError: the format is not a plain name.
        """
        if not _PLAIN.fullmatch(self.format):
            raise QueryError(UNKNOWN_FORMAT, f"Unknown format {self.format[:100]!r}", "UNKNOWN_FORMAT")
        return f"{self.sql} FROM INFILE {path} COMPRESSION 'none' {self.settings} FORMAT {self.format}"


class IncompleteError(Exception):
    """The text so far does not tell; more of it will."""


def insert_header(text: bytes, *, whole: bool) -> InsertHeader | None:
    """Return the header of an INSERT whose data follow in a format; None for any other statement.

    Raises:
        IncompleteError: the text may still become such a header; not if `whole` says that no more follows.
    """
    try:
        return _header(text, whole=whole)
    except (UnterminatedError, StopIteration):
        if whole:
            return None  # the engine says what is wrong with it
        raise IncompleteError from None


def _header(text: bytes, *, whole: bool) -> InsertHeader | None:
    tokens = tokenize(text)
    first = next(tokens)
    if first.end == len(text) and not whole:
        raise IncompleteError
    if not first.is_word("insert"):
        return None
    token = _after_target(tokens)
    depth = 0
    settings: int | None = None
    while True:
        if token.is_mark(b"("):
            depth += 1
        elif token.is_mark(b")"):
            depth -= 1
        elif depth == 0 and token.is_word("values", "select", "with", "from", "watch"):
            return None
        elif depth == 0 and token.is_word("format"):
            name = next(tokens)
            if name.end == len(text) and not whole:
                raise IncompleteError
            if name.is_word("values") or name.kind is not Kind.WORD:
                return None
            end = token.start if settings is None else settings
            return InsertHeader(
                sql=text[:end].decode().strip(),
                settings=text[end : token.start].decode().strip(),
                format=name.text.decode(),
                data_start=_data_start(text, name.end),
            )
        elif depth == 0 and token.is_word("settings"):
            settings = token.start
        token = next(tokens)


def _after_target(tokens: Iterator[Token]) -> Token:
    """Skip INTO, TABLE, FUNCTION and the name, and return the token behind: a table may be called `format`."""
    token = next(tokens)
    for keyword in ("into", "table", "function"):
        if token.is_word(keyword):
            token = next(tokens)
    token = next(tokens)
    while token.is_mark(b"."):
        next(tokens)
        token = next(tokens)
    return token


def _data_start(text: bytes, position: int) -> int:
    """Skip the blanks behind the format's name and one line end, or else a single blank."""
    end = position
    while text[end : end + 1] in (b" ", b"\t", b"\r"):
        end += 1
    if text[end : end + 1] == b"\n":
        return end + 1
    return min(position + 1, len(text)) if text[position : position + 1].isspace() else position


@dataclass(frozen=True)
class Statement:
    """A whole statement other than an INSERT with data."""

    sql: str
    tokens: tuple[Token, ...]

    @classmethod
    def parse(cls, text: bytes) -> Statement:
        """Cut the text into tokens.

        Raises:
            QueryError: it is empty, not UTF-8, does not end, or holds several statements.
        """
        try:
            sql, tokens = text.decode(), tuple(tokenize(text))
        except UnterminatedError:
            raise QueryError(SYNTAX_ERROR, "A string or comment is not closed", "SYNTAX_ERROR") from None
        except UnicodeDecodeError:
            raise QueryError(SYNTAX_ERROR, "The query is not UTF-8", "SYNTAX_ERROR") from None
        if not tokens:
            raise QueryError(SYNTAX_ERROR, "Empty query", "SYNTAX_ERROR")
        for token, following in pairwise(tokens):
            if token.is_mark(b";") and not following.is_mark(b";"):
                raise QueryError(SYNTAX_ERROR, "Multi-statements are not allowed", "SYNTAX_ERROR")
        return cls(sql, tokens)

    @property
    def keyword(self) -> str:
        """The first word, past opening brackets, in lower case."""
        return next((token.name for token in self.tokens if not token.is_mark(b"(")), "")

    @property
    def is_select(self) -> bool:
        """Whether it is a SELECT, in any of its forms, and stores nothing: WITH … INSERT does."""
        return self.keyword in ("select", "with", "from") and not any(t.is_word("insert") for t in self.tokens)

    @property
    def format(self) -> str | None:
        """The name in the FORMAT clause, if there is one."""
        index = self._format_clause
        return None if index is None else self.tokens[index + 1].text.decode().strip('`"')

    def into_file(self, path: str, format_: str) -> str:
        """Return the SELECT whose answer goes to a file; `path` is a quoted literal."""
        text = self.sql.encode()
        end = next(token.end for token in reversed(self.tokens) if not token.is_mark(b";"))
        index = self._format_clause
        at = end if index is None else self.tokens[index].start
        if self.tokens[0].is_mark(b"("):  # then settings behind it are the output's, and come last
            at = min(at, self._start_of_settings(end))
        clause = f"\nINTO OUTFILE {path} " + (f"FORMAT {format_} " if index is None else "")
        return (text[:at] + clause.encode() + text[at:end]).decode()

    def _start_of_settings(self, default: int) -> int:
        depth, start = 0, default
        for token in self.tokens:
            depth += token.is_mark(b"(") - token.is_mark(b")")
            if depth == 0 and token.is_word("settings"):
                start = token.start
        return start

    @property
    def _format_clause(self) -> int | None:
        tokens = [token for token in self.tokens if not token.is_mark(b";")]
        depth = 0
        for index, token in enumerate(tokens[:-1]):
            depth += token.is_mark(b"(") - token.is_mark(b")")
            last = index + 2 == len(tokens) or tokens[index + 2].is_word("settings")
            if depth == 0 and token.is_word("format") and tokens[index + 1].name and last:
                return index
        return None
