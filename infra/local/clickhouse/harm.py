"""Statements that would harm the engine, or that it could only seem to obey; refused for everybody.

Seen in engine 26.9: DROP DATABASE system leaves an engine that answers nothing; a failed CREATE with ENGINE =
Kafka one whose data path cannot be opened again; a database with ENGINE = Filesystem shows the machine's files to
all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from infra.local.clickhouse.errors import ACCESS_DENIED, BAD_ARGUMENTS, NOT_IMPLEMENTED, QueryError
from infra.local.clickhouse.statement import Statement
from infra.local.clickhouse.tokens import Token

_REFUSED_ENGINES = frozenset(
    {"azurequeue", "executable", "executablepool", "filelog", "kafka", "nats", "rabbitmq", "s3queue"}
)
_DATABASE_ENGINES = frozenset({"atomic", "memory"})
_NEEDED = frozenset({"system", "information_schema", "default"})
_OWN = _NEEDED - {"default"}
_CHANGES = frozenset(
    {
        "alter",
        "attach",
        "create",
        "detach",
        "drop",
        "exchange",
        "insert",
        "optimize",
        "rename",
        "replace",
        "truncate",
    }
)
_READS_ON = frozenset({"alter", "attach", "create", "insert", "replace"})  # may end in a SELECT, or in data
_LETTER_ESCAPE = re.compile(rb"""(?<!\\)(?:\\\\)*\\[^\\`"']""")
_ENDINGS = frozenset({"crash", "kill", "shutdown", "stop", "start", "suspend"})
_STOPPABLE = frozenset({
    "cleanup", "fetches", "merges", "moves", "mutations", "pulling", "replicated", "replication", "thread", "ttl",
    "view", "views",
})  # fmt: skip
_ACCESS = frozenset({"user", "users", "role", "roles", "quota", "quotas", "grants", "privileges", "access"})
_NO_USERS = (
    "There are no users, roles, quotas or row policies here: the gateway knows sop, who may do all, and analyst, "
    "who reads. A ClickHouse server has them"
)


def refuse_harm(statement: Statement) -> None:
    """Refuse a statement that nobody may run.

    Raises:
        QueryError: it is one.
    """
    tokens = [token for token in statement.tokens if not token.is_mark(b"(")]
    words = [token.name for token in tokens]
    if not words:
        return
    if words[0] in ("create", "attach", "replace", "alter"):
        _refuse_engines(tokens)
    if words[0] in _CHANGES:
        _refuse_escapes(tokens)
        _refuse_needed_databases(tokens)
    if _ends_the_engine(words):
        raise QueryError(ACCESS_DENIED, f"SYSTEM {words[1].upper()} would end the gateway", "ACCESS_DENIED")
    if _is_about_access(words):
        raise QueryError(NOT_IMPLEMENTED, _NO_USERS, "NOT_IMPLEMENTED")


def no_roles() -> QueryError:
    """What a request that names a role is told."""
    return QueryError(NOT_IMPLEMENTED, _NO_USERS, "NOT_IMPLEMENTED")


def _ends_the_engine(words: Sequence[str]) -> bool:
    if len(words) < 2 or words[0] != "system" or words[1] not in _ENDINGS:
        return False
    return words[1] not in ("stop", "start") or (len(words) > 2 and words[2] not in _STOPPABLE)


def _is_about_access(words: Sequence[str]) -> bool:
    first, second = words[0], words[1] if len(words) > 1 else ""
    if first in ("grant", "revoke"):
        return True
    if first == "set":
        return second == "role" or words[1:3] == ["default", "role"]
    if first in ("create", "alter", "drop", "show"):
        named = words[3] if words[1:3] == ["or", "replace"] and len(words) > 3 else second
        return (
            named in _ACCESS
            or words[1:3] in (["row", "policy"], ["settings", "profile"])
            or (
                first == "show"
                and second in ("policies", "profiles", "current", "enabled")
                and "roles" in words[1:3]
            )
        )
    return first == "execute" and second == "as"


def _refuse_escapes(tokens: Sequence[Token]) -> None:
    """No name whose letters are written as escapes: it would not be known for what it is."""
    for token in tokens:
        if token.has_escape and _LETTER_ESCAPE.search(token.text):
            message = f"In a quoted name only quotes and backslashes are escaped: {token.text.decode()[:100]}"
            raise QueryError(BAD_ARGUMENTS, message, "BAD_ARGUMENTS")


def _refuse_engines(tokens: Sequence[Token]) -> None:
    of_database = len(tokens) > 1 and tokens[1].is_word("database")
    for index, token in enumerate(tokens):
        if not token.is_word("engine"):
            continue
        names = [following.name for following in tokens[index + 1 : index + 3] if not following.is_mark(b"=")]
        if names and of_database and names[0] not in _DATABASE_ENGINES:
            message = (
                f"Database engine {names[0]} is not available here; {', '.join(sorted(_DATABASE_ENGINES))} are"
            )
            raise QueryError(NOT_IMPLEMENTED, message, "NOT_IMPLEMENTED")
        if names and names[0] in _REFUSED_ENGINES:
            message = f"Table engine {names[0]} is not available here"
            raise QueryError(NOT_IMPLEMENTED, message, "NOT_IMPLEMENTED")


def _refuse_needed_databases(tokens: Sequence[Token]) -> None:
    """No change to what the engine itself lives on: databases by name, and tables of its own ones."""
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if tokens[0].name in _READS_ON and token.is_word("select", "with", "values", "format"):
            return  # what follows is read
        if token.name in _OWN and following is not None and following.is_mark(b"."):
            raise _needed(token.name)
    if len(tokens) > 1 and tokens[1].is_word("database") and not tokens[0].is_word("create", "attach"):
        for token in tokens[2:]:
            if token.name in _NEEDED:
                raise _needed(token.name)


def _needed(name: str) -> QueryError:
    return QueryError(ACCESS_DENIED, f"The engine needs database {name} as it is", "ACCESS_DENIED")
