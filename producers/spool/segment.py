"""One file of the spool: an SQLite database in WAL mode, appended to by the robot, read by the publisher.

The robot's commits are a write into the page cache: they survive the process. What makes them survive the power
as well is `SegmentReader.sync`, in the publisher. The WAL is not checkpointed while the robot appends, because a
checkpoint, and the WAL's restart after it, wait for the disk; and a WAL that only grows is always a whole
beginning of what was recorded, by its checksums, whenever the power went.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLES = (
    "CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID",
    "CREATE TABLE kinds(kind INTEGER PRIMARY KEY, topic TEXT, record TEXT, version INTEGER, schema TEXT)",
    "CREATE TABLE events(position INTEGER PRIMARY KEY, kind INTEGER, taken_at REAL, traceparent BLOB, "
    "crc INTEGER, body BLOB)",
)
_INSERT = "INSERT INTO events VALUES(?, ?, ?, ?, ?, ?)"
_SELECT = "SELECT position, kind, taken_at, traceparent, crc, body FROM events "
# A tool that looks into the spool may hold it for a moment; a step cannot wait longer than that.
_WRITER_PATIENCE = 0.1
_READER_PATIENCE = 5.0
SIDE_FILES = ("-wal", "-shm")
DRAFT = "draft.db"


class SegmentDamaged(Exception):
    """The file is not what was written."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Where an event goes, and the schema that its body was written with."""

    topic: str
    record: str
    version: int
    schema: str


@dataclass(frozen=True, slots=True)
class Row:
    """An event as it lies in the spool; `taken_at` in unix seconds of the robot's clock."""

    position: int
    key: bytes
    kind: Kind
    taken_at: float
    traceparent: bytes
    body: bytes


class SegmentWriter:
    """Appends to one file. Any thread may use it, one at a time."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @classmethod
    def create(cls, path: Path, meta: dict[str, str], kinds: Sequence[Kind]) -> SegmentWriter:
        """A new file, on the disk for good before this returns; half-made ones never have its name.

        Raises:
            OSError, sqlite3.Error: it cannot be made.
        """
        draft = path.with_name(DRAFT)
        for suffix in ("", *SIDE_FILES):
            draft.with_name(DRAFT + suffix).unlink(missing_ok=True)
        connection = _connect(draft)
        try:
            _pragmas(connection, "journal_mode=WAL", "synchronous=NORMAL")
            connection.execute("BEGIN")
            for table in _TABLES:
                connection.execute(table)
            connection.executemany("INSERT INTO meta VALUES(?, ?)", meta.items())
            rows = [(n, k.topic, k.record, k.version, k.schema) for n, k in enumerate(kinds)]
            connection.executemany("INSERT INTO kinds VALUES(?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        finally:
            connection.close()  # moves everything out of the WAL, and syncs
        draft.rename(path)
        connection = _connect(path)
        try:
            _pragmas(connection, "synchronous=NORMAL", "wal_autocheckpoint=0")
            # The first commit to a WAL waits for the disk; let it not be a step's.
            connection.execute("INSERT INTO meta VALUES('opened', '')")
            for durable in (path.with_name(path.name + SIDE_FILES[0]), path.parent):
                sync_path(durable)
        except BaseException:
            connection.close()
            raise
        return cls(path, connection)

    def append(self, position: int, kind: int, taken_at: float, traceparent: bytes, body: bytes) -> None:
        """Commit one event; a write into the page cache, no wait for the disk.

        Raises:
            sqlite3.Error: it was not recorded.
        """
        self._connection.execute(_INSERT, (position, kind, taken_at, traceparent, _crc(traceparent, body), body))

    def append_all(self, events: Sequence[tuple[int, int, float, bytes, bytes]], carry: str | None = None) -> None:
        """Commit several events (arguments of `append`) at once, and what was open before them.

        Raises:
            sqlite3.Error: none was recorded.
        """
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            if carry is not None:
                self._connection.execute("INSERT INTO meta VALUES('carry', ?)", (carry,))
            for event in events:
                self.append(*event)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def seal(self) -> None:
        """Move everything from the WAL into the file proper, and let go; this waits for the disk."""
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            self._connection.close()

    def close(self) -> None:
        """Let go."""
        self._connection.close()


class SegmentReader:
    """Reads one file, beside its writer.

    Raises (all methods but `close`):
        SegmentDamaged: the file is not what was written.
        sqlite3.OperationalError: somebody else holds it, or the disk refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wal: int | None = None
        self._connection = sqlite3.connect(
            f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=_READER_PATIENCE
        )
        try:
            self._all("PRAGMA synchronous=NORMAL")
            self._all("PRAGMA wal_autocheckpoint=0")
            self.meta: dict[str, str] = dict(self._all("SELECT name, value FROM meta"))
            kinds = self._all("SELECT kind, topic, record, version, schema FROM kinds")
        except BaseException:
            self._connection.close()
            raise
        self._key = self.meta.get("robot_id", "").encode()
        self._kinds = {number: Kind(*fields) for number, *fields in kinds}

    def rows(self, after: int, limit: int) -> list[Row]:
        """At most `limit` events above a position, in order."""
        found = self._all(_SELECT + "WHERE position > ? ORDER BY position LIMIT ?", after, limit)
        return [self._row(fields) for fields in found]

    def salvage(self, after: int, upto: int) -> list[Row]:
        """What can still be read of a damaged file, one event at a time."""
        rows = []
        for position in range(after + 1, upto + 1):
            try:
                rows += [self._row(f) for f in self._all(_SELECT + "WHERE position = ?", position)]
            except (SegmentDamaged, sqlite3.Error):
                continue
        return rows

    def first(self) -> int | None:
        """Lowest position; None in an empty file."""
        value: int | None = self._all("SELECT min(position) FROM events")[0][0]
        return value

    def last(self) -> int | None:
        """Highest position; None in an empty file."""
        value: int | None = self._all("SELECT max(position) FROM events")[0][0]
        return value

    def sync(self) -> None:
        """Return once everything that was committed before the call is on the disk."""
        if self._wal is None:
            wal = self.path.with_name(self.path.name + "-wal")
            if not wal.exists():
                return  # checkpointed, and that waited for the disk
            self._wal = os.open(wal, os.O_RDONLY | os.O_CLOEXEC)
        os.fdatasync(self._wal)

    def seal(self) -> None:
        """Move what is in the WAL into the file proper; for files that nobody appends to any more."""
        self._all("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go."""
        if self._wal is not None:
            os.close(self._wal)
            self._wal = None
        self._connection.close()

    def _all(self, statement: str, *arguments: Any) -> list[Any]:
        try:
            return self._connection.execute(statement, arguments).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise  # somebody holds it, or the machine has no room or no descriptors left: the file is sound
            raise SegmentDamaged(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise SegmentDamaged(f"{self.path}: {error}") from error

    def _row(self, fields: tuple[int, int, float, bytes, int, bytes]) -> Row:
        position, kind, taken_at, traceparent, crc, body = fields
        if kind not in self._kinds or not isinstance(body, bytes) or _crc(traceparent, body) != crc:
            raise SegmentDamaged(f"{self.path}: event {position} is not what was written")
        return Row(position, self._key, self._kinds[kind], taken_at, traceparent, body)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=_WRITER_PATIENCE, cached_statements=8
    )


def _crc(traceparent: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(traceparent))


def _pragmas(connection: sqlite3.Connection, *pragmas: str) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")


def sync_path(path: Path) -> None:
    """Return once a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
