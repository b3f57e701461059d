"""ClickHouse SQL, cut into tokens: enough to find clauses and names outside strings and comments.

Follows src/Parsers/Lexer.cpp, but for numbers: their points are marks of their own, so that no name hides behind
one (`t.1.name`). What is not known here becomes an `ODD` token; whoever must be sure refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a token is; comments and space are left out."""

    WORD = "word"
    QUOTED = "quoted"
    STRING = "string"
    NUMBER = "number"
    MARK = "mark"
    ODD = "odd"


class Token(NamedTuple):
    """A token and where it lies in the text, as byte offsets."""

    kind: Kind
    text: bytes
    start: int
    end: int

    @property
    def name(self) -> str:
        """The name that a word or a quoted identifier stands for, in lower case; empty for others."""
        if self.kind is Kind.WORD:
            return self.text.decode("ascii").lower()
        if self.kind is Kind.QUOTED:
            return re.sub(rb"\\(.)|([`\"])\2", rb"\1\2", self.text[1:-1]).decode(errors="replace").lower()
        return ""

    @property
    def has_escape(self) -> bool:
        r"""Whether this is a quoted identifier with a backslash; `name` knows no escapes like \x41."""
        return self.kind is Kind.QUOTED and b"\\" in self.text

    def is_word(self, *words: str) -> bool:
        """Say whether this is one of the keywords, in lower case."""
        return self.kind is Kind.WORD and self.name in words

    def is_mark(self, mark: bytes) -> bool:
        """Say whether this is the punctuation mark."""
        return self.kind is Kind.MARK and self.text == mark


class UnterminatedError(Exception):
    """A string, a quoted identifier or a comment does not end within the text."""


_TOKEN = re.compile(
    rb"""
      (?P<space>\s+ | --[^\n]* | //[^\n]* | \#[ !][^\n]*)
    | (?P<comment>/\*)
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>[0-9][0-9A-Za-z_]*)
    | (?P<string>'(?:[^'\\]|\\.|'')*')
    | (?P<quoted>`(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*")
    | (?P<mark>[-(){}\[\],.;:=+*/%<>!?|&^~@])
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")


def tokenize(sql: bytes) -> Iterator[Token]:
    """Yield the tokens of `sql`.

    Raises:
        UnterminatedError: the text ends within a token; more text may complete it.
    """
    position = 0
    while position < len(sql):
        match = _TOKEN.match(sql, position)
        if match is None:
            if sql[position : position + 1] in (b"'", b"`", b'"'):
                raise UnterminatedError
            yield Token(Kind.ODD, sql[position : position + 1], position, position + 1)
            position += 1
            continue
        if match.lastgroup == "comment":
            position = _end_of_comment(sql, position)
            continue
        position = match.end()
        if match.lastgroup != "space":
            yield Token(Kind(match.lastgroup), match[0], match.start(), match.end())


def _end_of_comment(sql: bytes, position: int) -> int:
    """Return where the comment at `position` ends; ClickHouse's comments nest."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, position):
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()
    raise UnterminatedError
