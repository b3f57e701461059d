"""The embedded engine: one per data path, reached through handles that run in parallel and release the GIL."""

from __future__ import annotations

import fcntl
import os
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.clickhouse.errors import (
    SESSION_IS_LOCKED,
    SESSION_NOT_FOUND,
    TOO_MANY_SIMULTANEOUS_QUERIES,
    USER_SESSION_LIMIT_EXCEEDED,
    QueryError,
)
from infra.local.clickhouse.formats import Formats
from infra.local.clickhouse.handle import Bounds, Handle, literal

# Eight handles run in parallel in one engine; more only queue inside it. Readers never have more queries than this
# under way, in sessions or without, so that there is always room for the pipeline's.
_HANDLES_PER_ROLE = 8
# Sessions are cheap (30 KB each), but each may hold temporary tables.
_SESSIONS_PER_USER = 256
_WAIT_FOR_HANDLE_SECONDS = 60.0
# ClickHouse's own upper bound (max_session_timeout).
_LONGEST_SESSION_SECONDS = 3600.0


class PathInUseError(Exception):
    """Another process has opened the data path."""


class Engine:
    """All handles of one data path: pools of anonymous ones per role, and one per HTTP session."""

    def __init__(self, path: Path, bounds: Bounds | None = None) -> None:
        """Open the path, creating it if it is absent; `bounds` are those of each query of a reader.

        Raises:
            PathInUseError: another process has it open; the engine itself would damage it.
        """
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self.bounds = bounds or Bounds()
        self._lock_file = _lock(path)
        self._scratch = _emptied(path.with_name(path.name + ".inserts"))
        self._pools = {reader: _pool() for reader in (True, False)}
        self._reading = threading.BoundedSemaphore(_HANDLES_PER_ROLE)
        self._sessions: dict[tuple[str, str], Handle] = {}
        self._guard = threading.Lock()
        self._first = Handle(path)  # keeps the engine open
        _plain_default_database(self._first)
        self.settings = frozenset(row[0] for row in self._first.run("SELECT name FROM system.settings"))
        self.table_functions = frozenset(
            row[0] for row in self._first.run("SELECT name FROM system.table_functions")
        )
        self.formats = Formats(self._first.run("SELECT name, is_input, is_output FROM system.formats"))
        ((self.timezone,),) = self._first.run("SELECT timezone()")

    @contextmanager
    def room(self, *, reader: bool) -> Iterator[None]:
        """Wait until one more query of this kind may run, in whatever handle.

        Raises:
            QueryError: there was no room for a minute.
        """
        if reader and not self._reading.acquire(timeout=_WAIT_FOR_HANDLE_SECONDS):
            raise too_many()
        try:
            yield
        finally:
            if reader:
                self._reading.release()

    @contextmanager
    def pooled(self, *, reader: bool) -> Iterator[Handle]:
        """Lend an anonymous handle; one that comes back spoilt is replaced.

        Raises:
            QueryError: none was free for a minute.
        """
        handle: Handle | None = None
        pool = self._pools[reader]
        try:
            found = pool.get(timeout=_WAIT_FOR_HANDLE_SECONDS)
        except queue.Empty:
            raise too_many() from None
        try:
            handle = found or self._opened(reader)
            yield handle
        finally:
            if handle is not None and handle.spoilt:
                handle.close()
                handle = None
            pool.put(handle)  # a place that is empty wakes who waits, too

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
            QueryError: another request uses the session now, or it had to be `known` and is not, or the user has
                too many.
        """
        now = time.monotonic()
        with self._guard:
            self._end_sessions(now)
            handle = self._sessions.get((user, name))
            if handle is None and known:
                raise QueryError(
                    SESSION_NOT_FOUND, f"Session {name} not found or has expired", "SESSION_NOT_FOUND"
                )
            if handle is None and sum(owner == user for owner, _ in self._sessions) >= _SESSIONS_PER_USER:
                message = (
                    f"{user} has {_SESSIONS_PER_USER} sessions; end one (close_session=1) or wait for a timeout"
                )
                raise QueryError(USER_SESSION_LIMIT_EXCEEDED, message, "USER_SESSION_LIMIT_EXCEEDED")
            if handle is None:
                handle = self._sessions[user, name] = self._opened(reader)
            if not handle.busy.acquire(blocking=False):
                message = f"Session {name} is locked by a concurrent client"
                raise QueryError(SESSION_IS_LOCKED, message, "SESSION_IS_LOCKED")
            handle.expires = now + min(timeout, _LONGEST_SESSION_SECONDS)
        try:
            yield handle
        finally:
            if ends or handle.spoilt:
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
                idle += [handle for handle in pool.queue if handle is not None]
            self._sessions.clear()
        for handle in idle:
            handle.close()
        os.close(self._lock_file)

    def _opened(self, reader: bool) -> Handle:
        return Handle(self._path, self.bounds if reader else None)

    def _end_sessions(self, now: float) -> None:
        for key, handle in list(self._sessions.items()):
            if handle.expires < now and not handle.busy.locked():
                del self._sessions[key]
                handle.close()


def too_many() -> QueryError:
    """What a query is told that had to wait too long for its turn."""
    message = "Too many simultaneous queries; try again later"
    return QueryError(TOO_MANY_SIMULTANEOUS_QUERIES, message, "TOO_MANY_SIMULTANEOUS_QUERIES")


def _pool() -> queue.LifoQueue[Handle | None]:
    """Places for handles, empty at first."""
    pool: queue.LifoQueue[Handle | None] = queue.LifoQueue()
    for _ in range(_HANDLES_PER_ROLE):
        pool.put(None)
    return pool


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
