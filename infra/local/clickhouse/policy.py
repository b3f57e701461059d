"""Who may run what.  The engine has no users, and its readonly mode lets writes and reads of local files through.

Seen in engine 26.9 under readonly = 2: INSERT INTO FUNCTION file(…), SELECT … INTO OUTFILE and even EXPLAIN of
such an INSERT write files; file(…) reads any; KILL QUERY works. So a reader's statement must look like a read,
token by token, and name no table function but those listed; what the tokenizer does not know is refused.

Functions run without brackets (`* APPLY file`, `arrayMap(file, …)`), under escaped names (`f\\x69le`), and out of
strings: a table's structure may have columns that are expressions, as in values('a Int8, b String ALIAS file(…)').
A bound parameter of type Identifier becomes a name that stands in no token; those of other types stay values.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from infra.local.clickhouse.errors import BAD_ARGUMENTS, NOT_IMPLEMENTED, READONLY, SYNTAX_ERROR, QueryError
from infra.local.clickhouse.formats import READER_NEVER
from infra.local.clickhouse.harm import refuse_harm
from infra.local.clickhouse.settings import ReaderSettings
from infra.local.clickhouse.statement import Statement
from infra.local.clickhouse.tokens import Kind, Token, UnterminatedError, tokenize

_READS = frozenset({"select", "with", "from", "show", "describe", "desc", "explain", "exists", "set", "use"})

# Other words that begin a statement. What begins with none of them is a slip of the pen, and told as one.
_WRITES = frozenset({
    "alter", "attach", "backup", "begin", "check", "commit", "create", "delete", "detach", "drop", "exchange",
    "execute", "grant", "insert", "kill", "move", "optimize", "rename", "replace", "restore", "revoke", "rollback",
    "system", "truncate", "undrop", "unset", "update", "watch",
})  # fmt: skip

# Table functions that a reader may use: sources within the engine that take no structure as text. Not s3: a named
# collection would show all of its bucket, and any address is asked. Views like episode_steps read with the rights
# of their maker.
_READER_SOURCES = frozenset({
    "dictionary", "generate_series", "generateseries", "loop", "merge", "mergetreeindex", "mergetreeprojection",
    "numbers", "numbers_mt", "primes", "sqlstandardvalues", "view", "zeros", "zeros_mt",
})  # fmt: skip

# A plain function that reads files, and those that call out.
_READER_NEVER = frozenset({
    "aiclassify", "aiembed", "aiextract", "aifilter", "aigenerate", "airedact", "aisimilarity", "aitranslate",
    "file",
})  # fmt: skip

# What makes more of a column than a name and a type.
_NO_TYPE = ("alias", "as", "check", "codec", "default", "ephemeral", "materialized", "settings", "ttl")

_UNREADABLE = "Heredocs and characters outside ASCII, other than in quotes, are not allowed"


class Policy:
    """The rules, given the names of the engine's table functions, and what readers may set."""

    def __init__(self, table_functions: Collection[str], settings: ReaderSettings) -> None:
        self._forbidden = {name.lower() for name in table_functions} - _READER_SOURCES | _READER_NEVER
        self._forbidden -= {"format", "values"}  # names of other things, too: told apart below
        self._settings = settings

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
            self._settings.check_clauses(tokens)

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Refuse settings that came beside a reader's statement.

        Raises:
            QueryError: one is not for readers.
        """
        for name, value in settings.items():
            self._settings.check(name, value)

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
        depth, begins = 0, True
        for token in tokens:
            depth += token.is_mark(b"(") - token.is_mark(b")")
            if depth < 0 or token.is_mark(b";") or (depth == 0 and not begins and token.is_word(*_NO_TYPE)):
                message = "The structure of an external table is a list of names and types"
                raise QueryError(BAD_ARGUMENTS, message, "BAD_ARGUMENTS")
            begins = depth == 0 and token.is_mark(b",")
        self._check_reader(tokens)

    def _check_reader(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            if token.kind is Kind.ODD:
                raise _denied(_UNREADABLE)
            if token.has_escape:
                raise _denied("A backslash in a quoted name is not allowed")
        for index, token in enumerate(tokens):
            self._check_word(token, tokens[max(0, index - 3) : index], tokens[index + 1 : index + 4])

    def _check_word(self, token: Token, before: Sequence[Token], after: Sequence[Token]) -> None:
        """Refuse a token by what stands before and after it."""
        name = token.name
        qualified = bool(before) and before[-1].is_mark(b".")
        called = bool(after) and after[0].is_mark(b"(")
        if token.is_word("insert") and not qualified and not called:
            raise _denied("Cannot execute query in readonly mode")
        if name == "identifier" and _is_type_of_parameter(before):
            raise _denied("A parameter of type Identifier is not allowed: write the name itself")
        if token.is_word("parallel") and after and after[0].is_word("with"):
            raise _denied("Cannot execute query in readonly mode")
        if token.is_word("format") and after and after[0].name in READER_NEVER:
            raise _denied(f"Format {after[0].name} is not for a user who only reads")
        if called and name == "format" and not _is_pattern(after[1:]):
            raise _denied("Table function format is not allowed; the string function format('…{}…', …) is")
        if called and name == "values" and not _is_standard(before):
            raise _denied("Table function values is not allowed; (VALUES (…), …) is")
        if called and name in self._forbidden:
            raise _denied(f"Function {name} is not allowed")
        if name in _READER_NEVER and not qualified:
            raise _denied(f"Function {name} is not allowed (write a column of this name as table.{name})")


def _is_pattern(arguments: Sequence[Token]) -> bool:
    """Whether a call's first argument is a text that no format is called: what is made of strings has brackets."""
    if len(arguments) < 2 or arguments[0].kind is not Kind.STRING or b"{" not in arguments[0].text:
        return False
    return arguments[1].is_mark(b",") or arguments[1].is_mark(b")")


def _is_standard(before: Sequence[Token]) -> bool:
    """Whether VALUES stands as in the SQL standard, `FROM (VALUES (1), (2))`, which takes no structure."""
    return len(before) > 1 and before[-2].is_word("from", "join", "as") and before[-1].is_mark(b"(")


def _is_type_of_parameter(before: Sequence[Token]) -> bool:
    """Whether what follows is the type of a bound parameter, `{name: type}`; a map's keys are no names."""
    return len(before) > 2 and before[-3].is_mark(b"{") and before[-1].is_mark(b":")


def _no_statement(keyword: str) -> QueryError:
    near = difflib.get_close_matches(keyword, sorted(_READS | _WRITES), n=1)
    advice = f"did you mean {near[0].upper()}?" if near else "a query begins with SELECT, WITH, SHOW or DESCRIBE"
    return QueryError(
        SYNTAX_ERROR, f"Syntax error: no statement begins with '{keyword}'; {advice}", "SYNTAX_ERROR"
    )


def _denied(message: str) -> QueryError:
    return QueryError(READONLY, message, "READONLY")
