"""An artifact on its way to the robot's disk: in parts, resumed after a restart, no faster than allowed."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from infra.clock import Clock
from infra.errors import ObjectMissing
from producers.errors import PolicyRefused
from producers.policy_feed import PolicyFeed
from producers.policy_store import verify
from schemas.events import PolicyVersion

# One request each. Larger ones gain nothing; smaller ones lose less when a connection breaks.
_PART_BYTES = 8 * 2**20
_SMALLEST_PART = 64 * 2**10


class Interrupted(Exception):
    """A stop was asked for; what has arrived stays."""


class Pace:
    """So many bytes a second on average, in parts of about a second."""

    def __init__(self, bytes_per_second: float | None, clock: Clock) -> None:
        self._rate = bytes_per_second
        self._clock = clock
        self._free_at = clock.monotonic()

    @property
    def part_bytes(self) -> int:
        """How much to ask for at once."""
        return _PART_BYTES if self._rate is None else max(_SMALLEST_PART, min(_PART_BYTES, int(self._rate)))

    def spent(self, count: int) -> float:
        """Seconds to wait before the next part, now that `count` bytes have come."""
        if self._rate is None:
            return 0.0
        now = self._clock.monotonic()
        self._free_at = max(self._free_at, now) + count / self._rate
        return self._free_at - now


def download(
    announcement: PolicyVersion, path: Path, feed: PolicyFeed, pace: Pace, stopped: threading.Event
) -> None:
    """Bring an artifact to `path`, going on with what lies there; verified and durable when this returns.

    Raises:
        PolicyRefused: it is missing, or not what was announced; nothing is left.
        Interrupted: `stopped` was set.
        InfraError, OSError: try again; what has come stays.
    """
    name = f"{announcement.policy} v{announcement.version}"
    try:
        size = feed.size(announcement)
    except ObjectMissing as error:
        raise PolicyRefused(f"{name}: there is no artifact at {announcement.artifact_uri}") from error
    if size != announcement.size_bytes:
        path.unlink(missing_ok=True)
        raise PolicyRefused(f"{name}: {size} bytes, announced were {announcement.size_bytes}")
    resumed = path.exists()
    try:
        _fill(announcement, path, feed, pace, stopped)
    except PolicyRefused:
        path.unlink(missing_ok=True)
        if not resumed:
            raise
        try:  # what lay there may have been what is wrong
            _fill(announcement, path, feed, pace, stopped)
        except PolicyRefused:
            path.unlink(missing_ok=True)
            raise


def _fill(announcement: PolicyVersion, path: Path, feed: PolicyFeed, pace: Pace, stopped: threading.Event) -> None:
    with path.open("a+b") as file:
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        done = file.tell()
        while done < announcement.size_bytes:
            if stopped.is_set():
                raise Interrupted
            length = min(pace.part_bytes, announcement.size_bytes - done)
            part = feed.read(announcement, done, length)
            if len(part) == 0:
                break
            file.write(part)
            digest.update(part)
            done += len(part)
            if (pause := pace.spent(len(part))) > 0:
                stopped.wait(pause)
        file.flush()
        os.fsync(file.fileno())
    verify(announcement, done, digest.hexdigest())
