"""Where open episodes go when memory is wanted back: a folder for each process, gone with it.

A process that was killed leaves its folder behind; the next one to start removes it: nobody holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

from consumers.episode import OpenEpisode
from infra.errors import DiskFull, SpillUnusable

_PREFIX = "materializer-"


class SpillFolder:
    """This process's folder under `root`, which nobody else may read.

    Raises:
        SpillUnusable: the folder cannot be made, or `root` is somebody else's.
    """

    def __init__(self, root: Path) -> None:
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if root.is_symlink() or root.stat().st_uid != os.getuid():
                raise PermissionError(f"{root} is a link, or another user's")
            root.chmod(0o700)
            with _open_lock(root / "starting.lock") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)  # nobody takes a folder for abandoned before its lock is held
                _remove_abandoned(root)
                self.path = root / f"{_PREFIX}{uuid.uuid4().hex}"
                self._lock = _open_lock(root / f"{self.path.name}.lock")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self.path.mkdir(mode=0o700)
        except OSError as error:
            raise SpillUnusable(f"cannot spill to {root}: {error}; set SOP_MATERIALIZER__SPILL_DIR") from error

    def make_room(self, episodes: Iterable[OpenEpisode], limit: int, kept: int = 0) -> int:
        """Spill the largest episodes until the rest takes half of `limit` bytes; the bytes written.

        Nothing happens while all takes no more than `limit`. What cannot be spilled counts too: `kept` bytes, and
        what episodes hold beside their steps. Where that alone is too much, steps still have an eighth of the
        limit, or each batch would be a part of its own on disk.

        Raises:
            DiskFull: not all could be written. Nothing is lost: what was not written stays in memory.
            SpillUnusable: somebody removed what was written; the folder is there again, for what comes now.
        """
        found = list(episodes)
        kept += sum(episode.kept_bytes for episode in found)
        held = sum(episode.nbytes for episode in found)
        if held + kept <= limit or held <= limit // 8:
            return 0
        largest_first = sorted(found, key=lambda episode: episode.nbytes, reverse=True)
        written = 0
        for episode in largest_first:
            if held + kept <= limit // 2:
                break
            before = episode.nbytes
            try:
                written += episode.spill(self.path)
            except FileNotFoundError as error:
                with suppress(OSError):
                    self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                raise SpillUnusable(f"somebody else cleans up {self.path}: {error}") from error
            except OSError as error:
                raise DiskFull(f"cannot spill to {self.path}: {error}; make room there") from error
            held -= before
        return written

    def nbytes(self) -> int:
        """Bytes that spilled episodes take on disk now."""
        total = 0
        for file in self.path.glob("*.arrow"):
            with suppress(FileNotFoundError):  # somebody cleans up
                total += file.stat().st_size
        return total

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.with_name(f"{self.path.name}.lock").unlink(missing_ok=True)
        self._lock.close()


def _open_lock(path: Path) -> IO[bytes]:
    """A lock file, made if need be; a link in its place is refused."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "rb+")


def _remove_abandoned(root: Path) -> None:
    for lock in root.glob(f"{_PREFIX}*.lock"):
        with _open_lock(lock) as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink(missing_ok=True)
