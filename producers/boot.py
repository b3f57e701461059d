"""A robot's directory and which start of its client this is: a number that never goes back, kept on disk.

`boot_epoch = max(stored + 1 to 1,000, unix milliseconds)`: the clock helps a robot whose disk was wiped, the
stored number one whose clock went back. The step is drawn, so that two robots with copies of one disk and no clock
do not take the same number.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.clock import Clock
from infra.files import write_atomically
from producers.errors import DataDirBusy, SpoolFull
from producers.owned import close, own

_EPOCH_FILE = "boot_epoch"
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
# A client takes longer than so many milliseconds to start, so that epochs do not run ahead of the time.
_MOST_AHEAD = 1_000
FULL = (errno.ENOSPC, errno.EDQUOT)
# What a start writes: the epoch, the ends of what was open, the first files of the spool (18 KiB each).
_BOOT_BYTES = 512 * 1024
# Below this nothing is kept for the next start, which would take it from what is recorded now.
_PLENTY = 64 * 2**20


def _one_to_most() -> int:
    return 1 + secrets.randbelow(_MOST_AHEAD)


class DataDir:
    """A robot's directory, held by one process at a time.

    boot_epoch   the last one
    lock         held by the process, whose id it has
    boot-room    holds room on the disk for the next start, and nothing else
    spool/       see `producers.spool.directory`

    Raises:
        DataDirBusy: another process holds it.
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._keeps_room = False
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _text(self._lock)
            os.close(self._lock)
            raise DataDirBusy(
                f"{path} is in use by another robot client{_who(holder)}; stop it, or give this one a directory "
                f"of its own"
            ) from error
        own(self._lock)
        with contextlib.suppress(OSError):  # a full disk may still start
            os.truncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def give_room(self) -> None:
        """Give the disk what was kept for a start, and for the episode that an earlier process left open."""
        for file in (self._boot_room, self.path / "spool" / "reserve"):
            with contextlib.suppress(OSError):
                os.truncate(file, 0)

    def keep_room(self) -> None:
        """Keep room for the next start, which may find the disk full; not where there is little left.

        Asked once, `release` does it again: there may have been too little at first.
        """
        self._keeps_room = True
        with contextlib.suppress(OSError):
            found = os.statvfs(self.path)
            if found.f_bavail * found.f_frsize < _PLENTY:
                return
            descriptor = os.open(self._boot_room, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, _BOOT_BYTES)
            finally:
                os.close(descriptor)

    def next_boot_epoch(self, clock: Clock, step: Callable[[], int] = _one_to_most) -> int:
        """A number above every earlier one, on disk for good before it is returned.

        Raises:
            ValueError: the stored number cannot be read.
            SpoolFull: the disk is full.
            OSError: it cannot be written.
        """
        path = self.path / _EPOCH_FILE
        stored = _read(path)
        epoch = max(stored + step(), (clock.now() - _UNIX) // timedelta(milliseconds=1))
        try:
            write_atomically(path, f"{epoch}\n")
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise SpoolFull(
                f"the disk of {self.path} is full: a robot's client needs {_BOOT_BYTES // 1024} KiB to start, and "
                f"then sends what its spool holds. Free so much, outside of {self.path}: {error}"
            ) from error
        return epoch

    def release(self) -> None:
        """Let another process use the directory."""
        if self._keeps_room:
            self.keep_room()
        close(self._lock)

    @property
    def _boot_room(self) -> Path:
        return self.path / "boot-room"


def _text(descriptor: int) -> str:
    try:
        return os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    except OSError:
        return ""


def _who(holder: str) -> str:
    """The process that took the directory, as far as its lock says."""
    if not holder.isascii() or not holder.isdecimal():
        return ""
    try:
        os.kill(int(holder), 0)
    except ProcessLookupError:
        return f" (process {holder}, which is gone: one that it started still holds it)"
    except (OSError, OverflowError):
        pass  # somebody else's process
    return f" (process {holder})"


def _read(path: Path) -> int:
    if not path.exists():
        return 0
    text = path.read_text()
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"{path} holds {text[:40]!r}, not a boot epoch; write the highest boot_epoch that ClickHouse knows of "
            f"this robot into it"
        ) from error
