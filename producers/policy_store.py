"""Policy artifacts on a robot's disk: taken in only if they are what was announced."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from producers.errors import PolicyRefused
from schemas.events import PolicyVersion


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A verified artifact: what was announced, and where it lies."""

    announcement: PolicyVersion
    path: Path

    @property
    def policy(self) -> str:
        """Policy line."""
        return self.announcement.policy

    @property
    def version(self) -> int:
        """Version within its line, from 1."""
        return self.announcement.version

    def read(self) -> bytes:
        """The artifact, safetensors; checked again, because disks forget.

        Raises:
            PolicyRefused: the file was changed or removed since it was stored.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise PolicyRefused(f"{self.policy} v{self.version}: {error}") from error
        verify(self.announcement, data)
        return data


def verify(announcement: PolicyVersion, data: bytes) -> None:
    """Compare an artifact with its announcement.

    Raises:
        PolicyRefused: size or sha256 differ.
    """
    name = f"{announcement.policy} v{announcement.version}"
    if len(data) != announcement.size_bytes:
        raise PolicyRefused(f"{name}: {len(data)} bytes, announced were {announcement.size_bytes}")
    digest = hashlib.sha256(data).hexdigest()
    if digest != announcement.sha256:
        raise PolicyRefused(f"{name}: sha256 is {digest[:12]}…, announced was {announcement.sha256[:12]}…")


class PolicyStore:
    """The newest artifacts of one policy line in a directory."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        """Keep the `keep` highest versions. Another line needs a directory of its own."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._keep = keep

    def find(self, announcement: PolicyVersion) -> PolicyFile | None:
        """The artifact if it is here and intact, else None."""
        file = PolicyFile(announcement, self._path(announcement))
        try:
            file.read()
        except PolicyRefused:
            return None
        return file

    def add(self, announcement: PolicyVersion, data: bytes) -> PolicyFile:
        """Verify and store an artifact, durable when it returns.

        Raises:
            PolicyRefused: size or sha256 differ; nothing was stored.
            OSError: it could not be written.
        """
        verify(announcement, data)
        path = self._path(announcement)
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._prune()
        return PolicyFile(announcement, path)

    def _path(self, announcement: PolicyVersion) -> Path:
        # Zero-padded so that names sort by version; the digest, so that a re-made version is another file.
        name = f"{announcement.policy}-v{announcement.version:08d}-{announcement.sha256[:16]}.safetensors"
        return self._directory / name

    def _prune(self) -> None:
        for path in sorted(self._directory.glob("*.safetensors"))[: -self._keep]:
            path.unlink()
