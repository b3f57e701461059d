"""The publisher's end of the spool: what is recorded, in order; what of it is on the disk; and what may go."""

from __future__ import annotations

import time

import structlog

from producers.spool.directory import SpoolDirectory
from producers.spool.segment import Row, SegmentDamaged, SegmentReader

# Positions that are tried one by one in a damaged file that nothing follows.
_SALVAGED = 100_000
# Seconds between writes of how far Kafka has acknowledged: what a crash sends again.
_REMEMBER_EVERY = 0.5

_log = structlog.get_logger(__name__)


class Frontier:
    """Sees to it that what the robot appended gets onto the disk.

    Attributes:
        durable: position up to which everything is there.
    """

    def __init__(self, directory: SpoolDirectory) -> None:
        self.durable = 0
        self._directory = directory
        self._number = 0
        self._newest: SegmentReader | None = None
        self._ahead: SegmentReader | None = None

    def sync(self) -> None:
        """Wait for the disk, for all that was recorded before the call.

        Raises:
            sqlite3.OperationalError, OSError: not now.
        """
        while True:
            if self._ahead is None:
                self._ahead = self._open_following()
            try:
                if self._newest is not None:
                    self._sync(self._newest)
                if self._ahead is None or self._ahead.last() is None:
                    return
                if self._newest is not None:
                    self._sync(self._newest)  # what was appended until the robot went on to the next file
            except SegmentDamaged as error:
                # Who reads it puts it aside. What comes after is synced all the same.
                _log.warning("spool_file_damaged", error=str(error))
                if self._ahead is None:
                    return
            if self._newest is not None:
                self._newest.close()
            self._newest, self._ahead = self._ahead, None

    def close(self) -> None:
        """Let go of the files."""
        for reader in (self._newest, self._ahead):
            if reader is not None:
                reader.close()
        self._newest = self._ahead = None

    def _sync(self, reader: SegmentReader) -> None:
        last = reader.last()
        if last is not None and last > self.durable:
            reader.sync()
            self.durable = last

    def _open_following(self) -> SegmentReader | None:
        for number in self._directory.after(self._number):
            self._number = number
            try:
                return SegmentReader(self._directory.segment(number))
            except SegmentDamaged as error:
                _log.warning("spool_file_damaged", error=str(error))
        return None


class SpoolReading:
    """Reads files from the oldest on, and removes those that are all in Kafka.

    Nothing is handed out that a power loss could take back: the next boot would give the sequence number of an
    event that Kafka has and the disk has not to another one.

    Attributes:
        acknowledged: position up to which everything is in Kafka.
    """

    def __init__(self, directory: SpoolDirectory) -> None:
        self.acknowledged = directory.acknowledged()
        self._directory = directory
        self._frontier = Frontier(directory)
        self._cursor = self.acknowledged
        self._number = 0
        self._reader: SegmentReader | None = None
        self._finished: list[tuple[int, int]] = []
        self._damaged: dict[int, str] = {}
        self._remembered = self.acknowledged
        self._remembered_at = -_REMEMBER_EVERY

    @property
    def waiting(self) -> bool:
        """There are events to be read."""
        return self._frontier.durable > self._cursor

    def sync(self) -> None:
        """Wait for the disk, for all that was recorded before the call; only that is read."""
        self._frontier.sync()

    def read(self, limit: int) -> list[Row]:
        """The next events, at most about `limit`; a damaged file's are all at once.

        Raises:
            sqlite3.OperationalError, OSError: not now.
        """
        while True:
            if self._reader is None and not self._open_next():
                return []
            reader, durable = self._reader, self._frontier.durable
            assert reader is not None  # noqa: S101
            if self._number in self._damaged:
                rows = []
            else:
                try:
                    rows = [row for row in reader.rows(self._cursor, limit) if row.position <= durable]
                except SegmentDamaged as error:
                    rows = self._salvage(reader, str(error))
            if rows:
                self._cursor = rows[-1].position
                return rows
            if durable <= self._cursor:
                return []
            # What is left to be read lies in a later file, so nobody appends to this one any more.
            self._finished.append((self._number, self._cursor))
            self._let_go()

    def rewind(self) -> None:
        """Read again from the first event that Kafka has not acknowledged."""
        self._let_go()
        self._cursor, self._number, self._finished = self.acknowledged, 0, []
        self._damaged.clear()  # what was saved of them is saved once more

    def acknowledge(self, position: int) -> None:
        """Everything up to `position` is in Kafka; files that hold nothing else are removed."""
        self.acknowledged = position
        while self._finished and self._finished[0][1] <= position:
            number, _ = self._finished.pop(0)
            if number in self._damaged:
                self._directory.quarantine(number, self._damaged.pop(number))
            else:
                self._directory.delete(number)
        now = time.monotonic()
        if now - self._remembered_at >= _REMEMBER_EVERY:
            self.remember()
            self._remembered_at = now

    def remember(self) -> None:
        """Write down how far Kafka has acknowledged."""
        if self._remembered != self.acknowledged:
            self._directory.acknowledge(self.acknowledged)
            self._remembered = self.acknowledged

    def close(self) -> None:
        """Let go of the files."""
        self.remember()
        self._let_go()
        self._frontier.close()

    def _let_go(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open_next(self) -> bool:
        for number in self._directory.after(self._number):
            try:
                self._reader = SegmentReader(self._directory.segment(number))
            except SegmentDamaged as error:
                self._directory.quarantine(number, str(error))
                continue
            self._number = number
            return True
        return False

    def _salvage(self, reader: SegmentReader, why: str) -> list[Row]:
        upto = self._cursor + _SALVAGED
        for number in self._directory.after(self._number):
            try:
                following = SegmentReader(self._directory.segment(number))
            except SegmentDamaged:
                continue
            first = following.first()
            following.close()
            if first is not None:
                upto = min(upto, first - 1)
                break
        rows = reader.salvage(self._cursor, upto)
        self._damaged[self._number] = why
        _log.error("spool_file_damaged", path=str(reader.path), error=why, events_saved=len(rows))
        return rows
