"""The publisher's end of the spool: what is recorded, in order; what of it is on the disk; and what may go."""

from __future__ import annotations

import time
from pathlib import Path

import structlog

from producers.spool.directory import SpoolDirectory
from producers.spool.segment import Row, SegmentDamaged, SegmentReader

# Seconds between writes of how far Kafka has acknowledged: what a crash sends again.
_REMEMBER_EVERY = 0.5
_ALL = 2**62

_log = structlog.get_logger(__name__)


class Frontier:
    """Sees to it that what the robot appended gets onto the disk.

    Attributes:
        number: of the newest file that was begun; those before are complete, and on the disk.
        size: bytes of it that are there.
    """

    def __init__(self, directory: SpoolDirectory) -> None:
        self.number = 0
        self.size = 0
        self._directory = directory
        self._newest: SegmentReader | None = None
        self._empty: dict[int, SegmentReader] = {}
        self._unreadable: set[int] = set()

    def sync(self) -> None:
        """Wait for the disk, for all that was recorded before the call.

        Raises:
            OSError: not now.
        """
        numbers = self._directory.after(self.number)
        while True:
            following = self._begun(numbers)  # then nobody appends to the one before
            if self._newest is not None and self._newest.size != self.size:
                self.size = self._newest.sync()
            if following is None:
                return
            if self._newest is not None:
                self._newest.close()
            self._newest, self.number, self.size = self._empty.pop(following), following, 0
            for number in [number for number in self._empty if number < following]:
                self._empty.pop(number).close()  # never will be

    def upto(self, number: int) -> int:
        """Bytes of a file that are on the disk."""
        if number < self.number:
            return _ALL
        return self.size if number == self.number else 0

    def close(self) -> None:
        """Let go of the files."""
        for reader in (self._newest, *self._empty.values()):
            if reader is not None:
                reader.close()
        self._newest = None
        self._empty.clear()

    def _begun(self, numbers: list[int]) -> int | None:
        """The first file after the newest that was begun. One may stay empty for ever, and does not count."""
        for number in numbers:
            if number <= self.number or number in self._unreadable:
                continue
            try:
                reader = self._empty.get(number) or SegmentReader(self._directory.segment(number))
            except SegmentDamaged as error:
                # Who reads it puts it aside. What comes after is synced all the same.
                self._unreadable.add(number)
                _log.warning("spool_file_damaged", error=str(error))
                continue
            self._empty[number] = reader
            if reader.begun:
                return number
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
        # What Kafka has is passed over; not what repeats a position, as in spools of older clients.
        self._skip = self._cursor = self.acknowledged
        self._number = 0
        self._reader: SegmentReader | None = None
        self._finished: list[tuple[int, int]] = []
        self._damaged: dict[int, str] = {}
        self._remembered = self.acknowledged
        self._remembered_at = -_REMEMBER_EVERY

    @property
    def waiting(self) -> bool:
        """There are events to be read."""
        if self._reader is None:
            return self._frontier.number > self._number
        return self._reader.offset < min(self._frontier.upto(self._number), self._reader.size)

    def sync(self) -> None:
        """Wait for the disk, for all that was recorded before the call; only that is read."""
        self._frontier.sync()

    def read(self, limit: int) -> list[Row]:
        """The next events, at most `limit`.

        Raises:
            OSError: not now.
        """
        while True:
            if self._reader is None and not self._open_next():
                return []
            reader = self._reader
            assert reader is not None  # noqa: S101
            upto = min(self._frontier.upto(self._number), reader.size)
            while found := reader.read(limit, upto):
                if rows := [row for row in found if row.position > self._skip]:
                    self._cursor = rows[-1].position
                    return rows
            if self._number >= self._frontier.number:
                if reader.offset < upto:
                    self._frontier.size = reader.offset  # unfinished: what replaces it is synced anew
                return []
            if reader.offset < upto:
                reader.damage = f"it ends in the middle of an event, at {reader.offset}"
            if reader.damage is not None:
                self._damaged[self._number] = reader.damage
                _log.error("spool_file_damaged", path=str(reader.path), error=reader.damage)
            self._finished.append((self._number, self._cursor))
            self._let_go()

    def set_aside(self, row: Row) -> Path:
        """Keep an event elsewhere, for good; it counts as acknowledged once its caller says so.

        Raises:
            OSError: not now.
        """
        return self._directory.set_aside(row)

    def rewind(self) -> None:
        """Read again from the first event that Kafka has not acknowledged."""
        self._let_go()
        self._skip = self._cursor = self.acknowledged
        self._number, self._finished = 0, []
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
