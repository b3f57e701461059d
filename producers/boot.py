"""Which start of a robot's client this is: a number that never goes back, kept on disk.

`boot_epoch = max(stored + 1, unix milliseconds)`: the clock helps a robot whose disk was wiped, the stored number
one whose clock went back.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from infra.clock import Clock
from infra.files import write_atomically
from producers.errors import DataDirBusy

_EPOCH_FILE = "boot_epoch"
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)


class DataDir:
    """A robot's directory, held by one process at a time.

    Raises:
        DataDirBusy: another process holds it.
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise DataDirBusy(
                f"{path} is in use by another robot client; stop it, or give this one a directory of its own"
            ) from error

    def next_boot_epoch(self, clock: Clock) -> int:
        """A number above every earlier one, on disk for good before it is returned.

        Raises:
            ValueError: the stored number cannot be read.
        """
        path = self.path / _EPOCH_FILE
        stored = _read(path)
        epoch = max(stored + 1, (clock.now() - _UNIX) // timedelta(milliseconds=1))
        write_atomically(path, f"{epoch}\n")
        return epoch

    def release(self) -> None:
        """Let another process use the directory."""
        os.close(self._lock)


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
