"""The embedded engine: one per data path, reached through handles that run in parallel and release the GIL."""

from __future__ import annotations

import fcntl
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chdb.state.sqlitelike import Connection

from infra.local.clickhouse.errors import (
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    QueryError,
)

# Eight handles run in parallel in one engine; more only queue inside it.
_HANDLES_PER_ROLE = 8
_WAIT_FOR_HANDLE_SECONDS = 60.0
# ClickHouse's own upper bound (max_session_timeout).
_LONGEST_SESSION_SECONDS = 3600.0


class PathInUseError(Exception):
    """Another process has opened the data path."""


class Handle:
    """A connection to the engine with settings, temporary tables and a current database of its own."""

    def __init__(self, path: Path, *, reader: bool) -> None:
        self.connection: Any = Connection(str(path))
        self.reader = reader
        self.database: str | None = None
        self.spoilt = False
        self.busy = threading.Lock()
        self.expires = 0.0
        self.tag = uuid.uuid4().hex
        # By its comment a running query is found again (Engine.cancel). By default the engine tries an S3 server
        # that is down 500 times, which takes minutes.
        self.run(f"SET log_comment = {literal(self.tag)}, s3_retry_attempts = 5")
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


class Engine:
    """All handles of one data path: pools of anonymous ones per role, and one per HTTP session."""

    def __init__(self, path: Path) -> None:
        """Open the path, creating it if it is absent.

        Raises:
            PathInUseError: another process has it open; the engine itself would damage it.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._lock_file = _lock(path)
        self._scratch = _emptied(path.with_name(path.name + ".inserts"))
        self._pools: dict[bool, queue.LifoQueue[Handle]] = {True: queue.LifoQueue(), False: queue.LifoQueue()}
        self._made = {True: 0, False: 0}
        self._sessions: dict[tuple[str, str], Handle] = {}
        self._guard = threading.Lock()
        self._first = Handle(path, reader=False)  # keeps the engine open
        _plain_default_database(self._first)
        self.settings = frozenset(row[0] for row in self._first.run("SELECT name FROM system.settings"))
        self.table_functions = frozenset(
            row[0] for row in self._first.run("SELECT name FROM system.table_functions")
        )
        ((self.timezone,),) = self._first.run("SELECT timezone()")

    @contextmanager
    def pooled(self, *, reader: bool) -> Iterator[Handle]:
        """Lend an anonymous handle; one that comes back spoilt is replaced.

        Raises:
            QueryError: none was free for a minute.
        """
        handle = self._take(reader)
        try:
            yield handle
        finally:
            if handle.spoilt:
                with self._guard:
                    self._made[reader] -= 1
                handle.close()
            else:
                self._pools[reader].put(handle)

    @contextmanager
    def session(
        self, user: str, name: str, *, reader: bool, timeout: float, known: bool = False, ends: bool = False
    ) -> Iterator[Handle]:
        """Lend the handle of a user's HTTP session.

        Args:
            user: whose.
            name: the session's.
            reader: whether the user may only read.
            timeout: seconds after the last use at which it ends.
            known: do not begin a new one.
            ends: end it after this use.

        Raises:
            QueryError: another request uses the session now, or it had to be `known` and is not.
        """
        now = time.monotonic()
        with self._guard:
            self._end_sessions(now)
            handle = self._sessions.get((user, name))
            if handle is None and known:
                raise QueryError(
                    SESSION_NOT_FOUND, f"Session {name} not found or has expired", "SESSION_NOT_FOUND"
                )
            if handle is None:
                handle = self._sessions[user, name] = Handle(self._path, reader=reader)
            if not handle.busy.acquire(blocking=False):
                message = f"Session {name} is locked by a concurrent client"
                raise QueryError(SESSION_IS_LOCKED, message, "SESSION_IS_LOCKED")
            handle.expires = now + min(timeout, _LONGEST_SESSION_SECONDS)
        try:
            yield handle
        finally:
            if ends:
                with self._guard:
                    del self._sessions[user, name]
                handle.close()
            handle.busy.release()

    def cancel(self, handle: Handle) -> None:
        """End the query that runs on the handle now, if one does; it fails with code 394."""
        with self._guard:
            self._first.run(f"KILL QUERY WHERE Settings['log_comment'] = {literal(handle.tag)} ASYNC")

    @contextmanager
    def scratch_file(self) -> Iterator[Path]:
        """Lend the path of a file beside the engine's data; it is gone at the end."""
        path = self._scratch / uuid.uuid4().hex
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close all handles; queries that run are waited for by the caller."""
        with self._guard:
            idle = [self._first, *self._sessions.values()]
            for pool in self._pools.values():
                while not pool.empty():
                    idle.append(pool.get_nowait())
            self._sessions.clear()
        for handle in idle:
            handle.close()
        os.close(self._lock_file)

    def _take(self, reader: bool) -> Handle:
        pool = self._pools[reader]
        with self._guard:
            create = pool.empty() and self._made[reader] < _HANDLES_PER_ROLE
            self._made[reader] += create
        if create:
            try:
                return Handle(self._path, reader=reader)
            except BaseException:
                with self._guard:
                    self._made[reader] -= 1
                raise
        try:
            return pool.get(timeout=_WAIT_FOR_HANDLE_SECONDS)
        except queue.Empty:
            message = "Too many simultaneous queries"
            raise QueryError(TOO_MANY_SIMULTANEOUS_QUERIES, message, "TOO_MANY_SIMULTANEOUS_QUERIES") from None

    def _end_sessions(self, now: float) -> None:
        for key, handle in list(self._sessions.items()):
            if handle.expires < now and not handle.busy.locked():
                del self._sessions[key]
                handle.close()


def identifier(name: str) -> str:
    """Return a name as a quoted identifier."""
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def literal(value: str) -> str:
    """Return a text as a string literal."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _unescape(cell: str) -> str:
    names = {"t": "\t", "n": "\n", "r": "\r", "0": "\0", "b": "\b", "f": "\f"}
    return re.sub(r"\\(.)", lambda match: names.get(match[1], match[1]), cell)


def _lock(path: Path) -> int:
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise PathInUseError(f"{path} is open in another process; one engine per path") from None
    return descriptor


def _emptied(folder: Path) -> Path:
    """Make the folder for scratch files; what a killed process left in it goes."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    return folder


def _plain_default_database(handle: Handle) -> None:
    """Replace the embedded engine's `default` database by a plain one.

    Its own lies over the file system: SELECT * FROM `/etc/passwd` reads that file, for any user.
    """
    ((tables,),) = handle.run("SELECT count() FROM system.tables WHERE database = 'default'")
    if tables == "0":  # an empty one cannot be attached again, and need not be
        handle.run("DROP DATABASE default")
        handle.run("CREATE DATABASE default ENGINE = Atomic")
    else:
        handle.run("DETACH DATABASE default")
        handle.run("ATTACH DATABASE default")
    handle.run("USE default")
