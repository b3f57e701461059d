"""A handle of the embedded engine, and what a reader may take of it."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chdb.state.sqlitelike import Connection


@dataclass(frozen=True)
class Bounds:
    """What one query of a reader may take.

    Attributes:
        memory_bytes: of memory.
        answer_bytes: of its answer, as the engine holds it: uncompressed, before a format makes text of it.
        disk_bytes: of what it puts aside on disk while it sorts, groups and joins.
    """

    memory_bytes: int = 4 << 30
    answer_bytes: int = 8 << 30
    disk_bytes: int = 16 << 30

    @property
    def settings(self) -> dict[str, str]:
        """Settings of a reader's handle: the bounds, and no SQL out of data."""
        return {
            "max_memory_usage": str(self.memory_bytes),
            "max_result_bytes": str(self.answer_bytes),
            "max_temporary_data_on_disk_size_for_query": str(self.disk_bytes),
            "input_format_values_interpret_expressions": "0",
            "input_format_values_deduce_templates_of_expressions": "0",
            "allow_introspection_functions": "0",
            "allow_python_table_function": "0",
        }


class Handle:
    """A connection to the engine with settings, temporary tables and a current database of its own."""

    def __init__(self, path: Path, bounds: Bounds | None = None) -> None:
        """Open it; with `bounds` it is a reader's.

        Its settings cannot all be held from within: policy.py lets no statement of a reader's change them.
        """
        reader = bounds is not None
        self.connection: Any = Connection(str(path))
        self.reader = reader
        self.database: str | None = None
        self.spoilt = False
        self.busy = threading.Lock()
        self.expires = 0.0
        self.tag = uuid.uuid4().hex
        # By its comment a running query is found again (Engine.cancel). By default the engine tries an S3 server
        # that is down 500 times, which takes minutes.
        self.base = {"log_comment": literal(self.tag), "s3_retry_attempts": "5"}
        if bounds is not None:
            self.base |= bounds.settings
        self.run("SET " + ", ".join(f"{name} = {value}" for name, value in self.base.items()))
        if reader:
            self.run("SET readonly = 2")  # cannot be set back; policy.py says what it does not cover

    def run(self, sql: str) -> list[list[str]]:
        """Run a statement of the gateway's own; return its rows as text, unescaped."""
        result = self.query(sql, "TabSeparated")
        text = bytes(result.bytes() or b"").decode()
        return [[_unescape(cell) for cell in line.split("\t")] for line in text.splitlines()]

    def query(self, sql: str, format_: str, params: Mapping[str, str] | None = None) -> Any:
        """Run a statement and return the engine's result, whole."""
        try:
            return self.connection.query(sql, format_, params=dict(params or {}))
        except BaseException:
            self._discard_remains()
            raise

    def _discard_remains(self) -> None:
        """What a query had written before it failed would come in front of the next answer, whoever asks then."""
        try:
            self.connection.query("SELECT 1", "TabSeparated")
        except Exception:  # noqa: BLE001 - the failure that is under way matters more
            self.spoilt = True

    def use(self, database: str) -> None:
        """Make `database` current."""
        if database != self.database:
            self.run(f"USE {identifier(database)}")
            self.database = database

    def use_default(self, database: str) -> None:
        """Make `database` current if it exists, else `default`."""
        if database != self.database:
            exists = self.run(f"EXISTS DATABASE {identifier(database)}") == [["1"]]
            self.use(database if exists else "default")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()


def identifier(name: str) -> str:
    """Return a name as a quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value: str) -> str:
    """Return a text as a string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _unescape(cell: str) -> str:
    names = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}
    return re.sub(r"\\(.)", lambda match: names.get(match[1], match[1]), cell)
