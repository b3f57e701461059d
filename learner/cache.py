"""Payloads on the learner's own disk, by their sha256: what was fetched once is read from here the next time.

    <directory>/payloads/<first two digits>/<sha256>     directory/payloads/<…>.tmp while it is written
    <directory>/payloads/bytes                           how many there are, under a lock

What is read has the hash of its name, or is thrown away: so a torn or altered file does no harm, and nothing needs
to be synced. The files are those of all learners of the machine that use the directory; together they keep to the
bound. When there is no room, the ones that were used longest ago go, down to nine tenths of the bound.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from infra.object_store import sha256_hex
from learner.frames import own

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _File:
    path: Path
    size: int
    used_at: float

    @property
    def partial(self) -> bool:
        return self.path.suffix == ".tmp"


class PayloadCache:
    """At most `max_bytes` of payloads. A disk that fails costs speed and nothing else: no OSError leaves this."""

    def __init__(self, directory: Path, max_bytes: int, *, now: Callable[[], float] = time.time) -> None:
        """`now` in the seconds of the files' times."""
        self._directory = directory / "payloads"
        self._max_bytes = max_bytes
        self._now = now
        self._complained = False
        with self._survive("made"):
            self._max_bytes = 0  # until it is known to be ours
            own(self._directory)
            with self._locked():
                self._count(self._sweep(max_bytes))
            self._max_bytes = max_bytes

    def get(self, sha256: str) -> bytes | None:
        """The payload with this hash, if it is here; it was used just now."""
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if sha256_hex(data) != sha256:
            _log.warning("cached_payload_discarded", path=str(path))
            with self._survive("cleaned"):
                path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(OSError):  # somebody made room meanwhile
            now = self._now()
            os.utime(path, (now, now))
        return data

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a payload, if there is room for it at all; others may have to go."""
        path, size = self._path(sha256), len(data)
        if size > self._max_bytes or path.exists():
            return
        with self._survive("written"), self._locked():
            held = self._held()
            if held + size > self._max_bytes:
                held = self._sweep(min(self._max_bytes - size, int(0.9 * self._max_bytes)))
            # Counted before it is there: whoever is killed in between leaves a bound that is too low, not one
            # that is broken; the next sweep counts anew.
            self._count(held + size)
            # Others wait: a sweep would not see what is still to be written.
            path.parent.mkdir(mode=0o700, exist_ok=True)
            partial = self._directory / f"{uuid.uuid4().hex}.tmp"
            try:
                partial.write_bytes(data)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)

    def holds(self, sha256: str) -> bool:
        """Whether there is something under this hash."""
        return self._path(sha256).exists()

    def files(self) -> Iterator[tuple[str, int]]:
        """Hash and size of each payload that is here."""
        return ((file.path.name, file.size) for file in self._files() if not file.partial)

    def _path(self, sha256: str) -> Path:
        return self._directory / sha256[:2] / sha256

    def _sweep(self, wanted: int) -> int:
        """Remove what was used longest ago until at most `wanted` bytes are left; how many are.

        Called under the lock, under which all are written: what is half written was left by a killed learner.
        """
        found = list(self._files())
        for file in found:
            if file.partial:
                file.path.unlink(missing_ok=True)
        whole = sorted((file for file in found if not file.partial), key=lambda file: file.used_at)
        held = sum(file.size for file in whole)
        for file in whole:
            if held <= wanted:
                break
            file.path.unlink(missing_ok=True)
            held -= file.size
        return held

    def _files(self) -> Iterator[_File]:
        folders = [self._directory, *(Path(entry.path) for entry in _scan(self._directory) if entry.is_dir())]
        for folder in folders:
            for entry in _scan(folder):
                with contextlib.suppress(FileNotFoundError):  # written, or removed, under our eyes
                    found = entry.stat(follow_symlinks=False)
                    if entry.is_file(follow_symlinks=False) and (
                        folder != self._directory or ".tmp" in entry.name
                    ):
                        yield _File(Path(entry.path), found.st_size, found.st_mtime)

    def _held(self) -> int:
        try:
            return int((self._directory / "bytes").read_text())
        except (OSError, ValueError):
            return self._sweep(self._max_bytes)

    def _count(self, held: int) -> None:
        (self._directory / "bytes").write_text(str(held))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._directory / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _survive(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._complained:
                self._complained = True
                _log.warning("payload_cache_fails", what=what, directory=str(self._directory), error=str(error))


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
