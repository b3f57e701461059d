"""Who may run what.  The engine has no users, and its readonly mode lets writes and reads of local files through.

Seen in engine 26.9 under readonly = 2: INSERT INTO FUNCTION file(…), SELECT … INTO OUTFILE and even EXPLAIN of
such an INSERT write files; file(…) reads any; KILL QUERY works. So a reader's statement must look like a read,
token by token, and name no table function but those listed; what the tokenizer does not know is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from itertools import pairwise

from infra.local.clickhouse.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, READONLY, SYNTAX_ERROR, QueryError
from infra.local.clickhouse.harm import refuse_harm
from infra.local.clickhouse.statement import Statement
from infra.local.clickhouse.tokens import Kind, Token, UnterminatedError, tokenize

_READS = frozenset({"select", "with", "from", "show", "describe", "desc", "explain", "exists", "set", "use"})

# Other words that begin a statement. What begins with none of them is a slip of the pen, and told as one.
_WRITES = frozenset({
    "alter", "attach", "backup", "begin", "check", "commit", "create", "delete", "detach", "drop", "exchange",
    "execute", "grant", "insert", "kill", "move", "optimize", "rename", "replace", "restore", "revoke", "rollback",
    "system", "truncate", "undrop", "unset", "update", "watch",
})  # fmt: skip

# Table functions that a reader may use: sources within the engine. Not s3: a named collection would show all of
# its bucket, and any address is asked. Views like episode_steps read with their maker's rights.
_READER_SOURCES = frozenset({
    "dictionary", "format", "fuzzjson", "generate_series", "generaterandom", "generateseries", "loop", "merge",
    "mergetreeindex", "mergetreeprojection", "null", "numbers", "numbers_mt", "primes",
    "sqlstandardvalues", "values", "view", "viewexplain", "viewifpermitted", "zeros", "zeros_mt",
})  # fmt: skip

# A plain function that reads files, and those that call out.
_READER_NEVER = frozenset({
    "aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate", "airedact", "aisimilarity", "aitranslate",
    "file",
})  # fmt: skip


class Policy:
    """The rules, given the names of the engine's table functions."""

    def __init__(self, table_functions: Collection[str]) -> None:
        self._forbidden = {name.lower() for name in table_functions} - _READER_SOURCES | _READER_NEVER

    def check(self, statement: Statement, *, reader: bool) -> None:
        """Refuse a statement that its user may not run.

        Raises:
            QueryError: it may not run.
        """
        tokens = statement.tokens
        for token, following in pairwise(tokens):
            if token.is_word("into") and following.is_word("outfile"):
                raise QueryError(NOT_IMPLEMENTED, "INTO OUTFILE is not allowed", "NOT_IMPLEMENTED")
            if token.is_word("from") and following.is_word("infile"):
                raise QueryError(NOT_IMPLEMENTED, "FROM INFILE is not allowed", "NOT_IMPLEMENTED")
        refuse_harm(statement)
        if reader:
            if statement.keyword in _WRITES:
                raise _denied("Cannot execute query in readonly mode")
            if statement.keyword not in _READS:
                raise _no_statement(statement.keyword)
            self._check_reader(tokens)

    def check_structure(self, structure: str) -> None:
        """Refuse the structure of an external table that is more than a list of columns.

        Raises:
            QueryError: it is.
        """
        try:
            tokens = tuple(tokenize(structure.encode()))
        except UnterminatedError:
            raise QueryError(
                BAD_ARGUMENTS, "The structure of an external table does not end", "BAD_ARGUMENTS"
            ) from None
        depth = 0
        for token in tokens:
            depth += token.is_mark(b"(") - token.is_mark(b")")
            if depth < 0 or token.is_mark(b";"):
                raise QueryError(BAD_ARGUMENTS, "The structure of an external table is not one", "BAD_ARGUMENTS")
        self._check_reader(tokens)

    def _check_reader(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            if token.kind is Kind.ODD:
                raise _denied("Heredocs and characters outside ASCII, other than in quotes, are not allowed")
        for token, following in pairwise(tokens):
            if token.is_word("insert") and following.is_word("into", "table", "function"):
                raise _denied("Cannot execute query in readonly mode")
            if following.is_mark(b"(") and token.name in self._forbidden:
                raise _denied(f"Function {token.name} is not allowed")


def _no_statement(keyword: str) -> QueryError:
    near = difflib.get_close_matches(keyword, sorted(_READS | _WRITES), n=1)
    advice = f"did you mean {near[0].upper()}?" if near else "a query begins with SELECT, WITH, SHOW or DESCRIBE"
    return QueryError(
        SYNTAX_ERROR, f"Syntax error: no statement begins with '{keyword}'; {advice}", "SYNTAX_ERROR"
    )


def _denied(message: str) -> QueryError:
    return QueryError(READONLY, message, "READONLY")
