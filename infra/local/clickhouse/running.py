"""The queries that run, by the ids and names that clients gave them.

The engine gives ids of its own and knows one user. It keeps each handle's tag beside its queries, so that a
condition of KILL QUERY on `query_id` and `user` can be put in its words.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from infra.local.clickhouse.errors import QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING, QueryError
from infra.local.clickhouse.statement import Statement

_TAG = "Settings['log_comment']"


@dataclass(frozen=True)
class _Query:
    user: str
    tag: str


class Running:
    """Queries under way."""

    def __init__(self) -> None:
        self._queries: dict[str, _Query] = {}
        self._guard = threading.Lock()

    @contextmanager
    def query(self, query_id: str, user: str, tag: str) -> Iterator[None]:
        """Within the block the query `query_id` runs on the handle with this tag.

        Raises:
            QueryError: another one with this id does.
        """
        with self._guard:
            if query_id in self._queries:
                raise QueryError(
                    QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING,
                    f"Query with id = {query_id} is already running",
                    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING",
                )
            self._queries[query_id] = _Query(user, tag)
        try:
            yield
        finally:
            with self._guard:
                del self._queries[query_id]

    def translated(self, statement: Statement) -> str:
        """A KILL QUERY in the engine's words; any other statement as it is."""
        tokens = statement.tokens
        if statement.keyword != "kill" or len(tokens) < 2 or not tokens[1].is_word("query"):
            return statement.sql
        with self._guard:
            queries = dict(self._queries)
        names = {
            "query_id": {query.tag: query_id for query_id, query in queries.items()},
            "user": {query.tag: query.user for query in queries.values()},
        }
        text, out, at = statement.sql.encode(), [], 0
        for token in tokens:
            known = names.get(token.name)
            if known:
                out += [text[at : token.start].decode(), _lookup(token.name, known)]
                at = token.end
        return "".join([*out, text[at:].decode()])


def _lookup(column: str, known: dict[str, str]) -> str:
    """The column's value as the client knows it, as an expression over system.processes."""
    tags, values = (", ".join(f"'{_escaped(part)}'" for part in parts) for parts in (known, known.values()))
    return f"transform({_TAG}, [{tags}], [{values}], {column})"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
