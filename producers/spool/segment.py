"""One file of the spool: the robot appends frames to it, the publisher reads them.

An append is one write into the page cache: it survives the process. What makes it survive the power as well is
`SegmentReader.sync`, in the publisher. A write that was cut short, by a kill or by a disk that is full, leaves an
unfinished frame at the end, which whoever writes or opens the file next cuts off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.files import sync_folder
from producers.owned import close, own
from producers.spool.framing import Stored, find, pack, unpack

DRAFT = "draft"
# Frames that hold no event: what the file is, and what was open when it began.
_HEADER, _CARRY = 255, 254
_CHUNK = 2**18
_ALL = 2**62
_os_write = os.write  # a control loop finds a large namespace in no cache


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
    """Appends to one file. Any thread may use it, one at a time.

    Attributes:
        appended: bytes of events.
    """

    def __init__(self, path: Path, descriptor: int, begin: int) -> None:
        self.path = path
        self.appended = 0
        self._descriptor = own(descriptor)
        self._begin = begin
        self._torn = False

    @classmethod
    def create(cls, path: Path, meta: dict[str, str], kinds: Sequence[Kind]) -> SegmentWriter:
        """A new file, on the disk for good before this returns; half-made ones never have its name.

        Raises:
            OSError: it cannot be made.
        """
        draft = path.with_name(DRAFT)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(draft, flags, 0o600)
        try:
            header = header_frame(meta, kinds)
            _write(descriptor, header)
            os.fsync(descriptor)
            draft.rename(path)
            sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor, len(header))

    def append(self, data: bytes) -> None:
        """Record frames (`framing.pack`, `carry_frame`): a write into the page cache, no wait for the disk.

        Raises:
            OSError: nothing was recorded.
        """
        if self._torn:
            self._cut()
        try:
            if (written := _os_write(self._descriptor, data)) < len(data):
                _write(self._descriptor, data[written:])
        except OSError:
            self._torn = True
            self._cut()
            raise
        self.appended += len(data)

    def recount(self) -> tuple[str | None, list[Row]]:
        """What was open when the file began, and its events; what is unfinished behind them is cut off.

        For whoever appended and was interrupted: the file alone says what of it was done.

        Raises:
            OSError, SegmentDamaged: nobody can say; nothing was cut off.
        """
        reader = SegmentReader(self.path)
        try:
            rows = reader.read_all()
            self.appended = reader.offset - self._begin if rows else 0
        finally:
            reader.close()
        self._cut()
        return reader.carry, rows

    def close(self) -> None:
        """Let go; nothing can be appended any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            close(descriptor)

    def _cut(self) -> None:
        os.ftruncate(self._descriptor, self._begin + self.appended)
        self._torn = False


class SegmentReader:
    """Reads one file from its beginning, beside its writer.

    Attributes:
        meta: what its first frame says of it.
        offset: bytes that were read.
        damage: why it is not what was written, as far as it was read; None when all is well.

    Raises:
        SegmentDamaged: it does not begin like one.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.carry: str | None = None
        self.damage: str | None = None
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.meta, kinds, self.offset = self._header()
        except BaseException:
            os.close(self._descriptor)
            raise
        self._begin = self.offset
        self._key = self.meta.get("robot_id", "").encode()
        self._kinds = [Kind(**kind) for kind in kinds]

    @property
    def size(self) -> int:
        """Bytes of the file, now."""
        return os.fstat(self._descriptor).st_size

    @property
    def begun(self) -> bool:
        """Whether events were appended: then the files before are complete."""
        return self.size > self._begin

    def read(self, limit: int, upto: int) -> list[Row]:
        """The next events, at most `limit`, that lie below byte `upto`; none when there are no more.

        What is damaged is left out, where something whole follows it below `upto`.

        Raises:
            OSError: not now.
        """
        size = _CHUNK
        while self.offset < upto:
            data = os.pread(self._descriptor, min(size, upto - self.offset), self.offset)
            events, end, wrong = unpack(data, 0, limit)
            self.offset += end
            if rows := self._rows(events):
                return rows
            if events:
                continue
            if not wrong and len(data) == size:
                size *= 2  # one large event
            elif not self._skip(upto):
                break
        return []

    def read_all(self) -> list[Row]:
        """All that can be read of a file that nobody appends to."""
        rows: list[Row] = []
        while found := self.read(_ALL, self.size):
            rows += found
        return rows

    def cut(self) -> int:
        """Cut off what a write left unfinished at the end, once all else was read; so many bytes.

        Raises:
            OSError: not now.
        """
        torn = self.size - self.offset
        if torn:
            os.truncate(self.path, self.offset)
        return torn

    def sync(self) -> int:
        """Return once everything that was recorded before the call is on the disk; so many bytes."""
        size = self.size
        os.fdatasync(self._descriptor)
        return size

    def close(self) -> None:
        """Let go."""
        os.close(self._descriptor)

    def _header(self) -> tuple[dict[str, str], list[dict[str, Any]], int]:
        data = os.pread(self._descriptor, _CHUNK, 0)
        events, end, _ = unpack(data, 0, 1)
        if not events or events[0].kind != _HEADER:
            raise SegmentDamaged(f"{self.path}: it does not begin like a file of the spool")
        header = json.loads(events[0].body)
        return header["meta"], header["kinds"], end

    def _rows(self, events: list[Stored]) -> list[Row]:
        rows = []
        for event in events:
            if event.kind < len(self._kinds):
                kind = self._kinds[event.kind]
                rows.append(Row(event.position, self._key, kind, event.taken_at, event.traceparent, event.body))
            elif event.kind == _CARRY:
                self.carry = event.body.decode()
        return rows

    def _skip(self, upto: int) -> bool:
        """Go on at the next whole frame, if there is one."""
        data = os.pread(self._descriptor, upto - self.offset, self.offset)
        found = find(data, 1)
        if found is None:
            return False
        self.damage = f"{found} bytes at {self.offset} are not what was written"
        self.offset += found
        return True


def carry_frame(carry: str) -> bytes:
    """What was open when a file began; it goes before the first event."""
    return pack(0, _CARRY, 0.0, b"", carry.encode())


def header_frame(meta: dict[str, str], kinds: Sequence[Kind]) -> bytes:
    """A file's first frame."""
    header = {"meta": meta, "kinds": [asdict(kind) for kind in kinds]}
    return pack(0, _HEADER, 0.0, b"", json.dumps(header).encode())


def _write(descriptor: int, data: bytes) -> None:
    written = _os_write(descriptor, data)
    while written < len(data):  # the disk is full, which the next attempt says; or a signal came
        written += _os_write(descriptor, data[written:])
