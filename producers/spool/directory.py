"""The spool's folder: numbered files, how far Kafka has acknowledged, and what was found damaged.

segment-0000000012.log  events of one boot, in order; a higher number is newer
acknowledged            position up to which everything is in Kafka
quarantine/             damaged files, and events that Kafka takes from nobody; never deleted by us
reserve                 room kept for the episode that is open
frames/                 what cameras saw (`producers.frames.directory`)
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from infra.files import sync_folder, write_atomically
from producers.frames.directory import FrameDirectory
from producers.spool.segment import Row

# The newest files: one is appended to, and the next lies ready.
_APPENDED_TO = 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SpoolDirectory:
    """Names and files below `path`, which is made when it is missing."""

    path: Path
    _sizes: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    @property
    def reserve_file(self) -> Path:
        """Holds room for the episode that is open, and nothing else."""
        return self.path / "reserve"

    @functools.cached_property
    def frames(self) -> FrameDirectory:
        """What cameras saw."""
        return FrameDirectory(self.path / "frames")

    @contextmanager
    def exclusive(self, patience: float) -> Iterator[None]:
        """Be the only one who reads or removes files; waits at most `patience` seconds for whoever is.

        Raises:
            OSError: somebody still does.
        """
        descriptor = os.open(self.path / "publisher.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() >= until:
                        raise BlockingIOError(f"another process still sends from {self.path}") from None
                    time.sleep(0.01)
            yield
        finally:
            os.close(descriptor)

    def segment(self, number: int) -> Path:
        """File of a number."""
        return self.path / f"segment-{number:010d}.log"

    def numbers(self) -> list[int]:
        """Numbers of all files, oldest first."""
        return sorted(int(path.stem.removeprefix("segment-")) for path in self.path.glob("segment-*.log"))

    def after(self, number: int) -> list[int]:
        """Numbers above one, oldest first."""
        return [found for found in self.numbers() if found > number]

    def acknowledged(self) -> int:
        """Position up to which everything is in Kafka; 0 when that is not known: then all is sent again."""
        try:
            return int((self.path / "acknowledged").read_text())
        except FileNotFoundError:
            return 0
        except ValueError as error:
            _log.error("spool_position_unreadable", path=str(self.path / "acknowledged"), error=str(error))
            return 0

    def acknowledge(self, position: int) -> None:
        """Remember a position. Not synced: an older one only sends events again that readers know."""
        temporary = self.path / "acknowledged.new"
        temporary.write_text(f"{position}\n")
        temporary.replace(self.path / "acknowledged")

    def delete(self, number: int) -> None:
        """Remove a file whose events are all in Kafka."""
        self.segment(number).unlink(missing_ok=True)

    def quarantine(self, number: int, why: str) -> Path:
        """Put a damaged file aside, under a name that no other has."""
        folder = self.path / "quarantine"
        folder.mkdir(exist_ok=True)
        path = self.segment(number)
        target = folder / path.name
        attempt = 0
        while target.exists():
            attempt += 1
            target = folder / f"{path.name}.{attempt}"
        path.rename(target)
        _log.error("spool_file_quarantined", path=str(target), error=why)
        return target

    def quarantined(self) -> list[Path]:
        """Damaged files that somebody must look at."""
        return sorted((self.path / "quarantine").glob("segment-*"))

    def set_aside(self, row: Row) -> Path:
        """Keep an event that Kafka does not take: a line of JSON says what it is, then come its Avro body's bytes.

        Its file is on the disk for good when this returns; set aside again, it is the same one.

        Raises:
            OSError: the disk refuses.
        """
        folder = self.path / "quarantine"
        folder.mkdir(exist_ok=True)
        about = {
            "topic": row.kind.topic,
            "key": row.key.decode(),
            "record": row.kind.record,
            "version": row.kind.version,
            "position": row.position,
            "taken_at": row.taken_at,
            "traceparent": row.traceparent.decode(errors="replace"),
        }
        path = folder / f"event-{row.position:010d}-{hashlib.sha256(row.body).hexdigest()[:8]}"
        write_atomically(path, json.dumps(about).encode() + b"\n" + row.body)
        sync_folder(self.path)
        return path

    def aside(self) -> list[Path]:
        """Events that Kafka did not take, for somebody to look at."""
        return sorted((self.path / "quarantine").glob("event-*"))

    def used_bytes(self) -> int:
        """Bytes of all files, without the reserve. Cheap: sizes of files that nobody appends to are remembered."""
        with os.scandir(self.path) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith("segment-"))
        for gone in self._sizes.keys() - names:
            self._sizes.pop(gone, None)
        used = self.frames.used_bytes()
        for number, name in enumerate(names, _APPENDED_TO - len(names)):
            size = self._sizes.get(name)
            if size is None:
                try:
                    size = (self.path / name).stat().st_size
                except FileNotFoundError:
                    continue  # sent, and deleted meanwhile
                if number < 0:
                    self._sizes[name] = size
            used += size
        return used

    def free_bytes(self) -> int:
        """Bytes that the file system has left for us."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize
