"""Policies on a robot's disk: artifacts with their announcements as sent, the newest rollout, and what ran last.

Everything is the old or the new file, whenever the power goes. An artifact counts once its announcement lies
beside it; one that is being downloaded ends in `.part`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from infra.files import sync_folder, write_atomically
from infra.policies.announced import Announced, announced_from_json
from producers.errors import PolicyRefused
from schemas.errors import SchemaError
from schemas.events import PolicyRollout, PolicyVersion, SignedEvent

_CHUNK = 8 * 2**20
_ROLLOUT, _ACTIVE = "rollout.json", "active.json"

S = TypeVar("S", bound=SignedEvent)

_log = structlog.get_logger(__name__)


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
        verify(self.announcement, len(data), hashlib.sha256(data).hexdigest())
        return data


def verify(announcement: PolicyVersion, size: int, sha256: str) -> None:
    """Compare an artifact's size in bytes and hex digest with its announcement.

    Raises:
        PolicyRefused: they differ.
    """
    name = f"{announcement.policy} v{announcement.version}"
    if size != announcement.size_bytes:
        raise PolicyRefused(f"{name}: {size} bytes, announced were {announcement.size_bytes}")
    if sha256 != announcement.sha256:
        raise PolicyRefused(f"{name}: sha256 is {sha256[:12]}…, announced was {announcement.sha256[:12]}…")


class PolicyStore:
    """The artifacts of one policy line in a directory of its own; another line needs another."""

    def __init__(self, directory: Path, keep: int = 3) -> None:
        """`prune` leaves `keep` artifacts."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._keep = keep

    def stored(self) -> list[Announced[PolicyVersion]]:
        """Announcements whose artifacts are here, not verified, lowest version first."""
        names = sorted(self._directory.glob("*.safetensors"))
        found = [self._read_or_none(path.with_suffix(".json"), PolicyVersion) for path in names]
        return [announced for announced in found if announced is not None]

    def find(self, announcement: PolicyVersion) -> PolicyFile | None:
        """The artifact if it is here and intact, else None."""
        file = PolicyFile(announcement, self._path(announcement))
        try:
            with file.path.open("rb") as data:
                verify(
                    announcement, os.fstat(data.fileno()).st_size, hashlib.file_digest(data, "sha256").hexdigest()
                )
        except (OSError, PolicyRefused):
            return None
        return file

    def part(self, announcement: PolicyVersion) -> Path:
        """Where a download of it goes, and goes on after a restart."""
        return self._path(announcement).with_suffix(".part")

    def adopt(self, announced: Announced[PolicyVersion]) -> PolicyFile:
        """The finished and verified `part` becomes the artifact, durable when this returns.

        Raises:
            OSError: it could not be written.
        """
        path = self._path(announced.event)
        write_atomically(path.with_suffix(".json"), announced.to_json())
        self.part(announced.event).replace(path)
        sync_folder(self._directory)
        return PolicyFile(announced.event, path)

    def prune(self, protected: Iterable[PolicyVersion]) -> None:
        """Remove all but the newest artifacts, by when they came, and the `protected` ones; and old downloads."""
        kept = {self._path(announcement) for announcement in protected}
        by_age = sorted(self._directory.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
        room = max(0, self._keep - len(kept))
        others = [path for path in by_age if path not in kept]
        for path in others[: len(others) - room]:
            path.unlink()
            path.with_suffix(".json").unlink(missing_ok=True)
        for part in self._directory.glob("*.part"):
            if part.with_suffix(".safetensors") not in kept:
                part.unlink()

    def rollout(self) -> Announced[PolicyRollout] | None:
        """The newest rollout that was saved, not verified; None: none ever was.

        Raises:
            PolicyRefused: one was, and its file cannot be read.
        """
        return self._read(self._directory / _ROLLOUT, PolicyRollout)

    def save_rollout(self, announced: Announced[PolicyRollout]) -> None:
        """Remember it for the next boot; durable when this returns."""
        write_atomically(self._directory / _ROLLOUT, announced.to_json())

    def active(self) -> Announced[PolicyVersion] | None:
        """What ran last, not verified."""
        return self._read_or_none(self._directory / _ACTIVE, PolicyVersion)

    def save_active(self, announced: Announced[PolicyVersion]) -> None:
        """Remember what runs; durable when this returns."""
        write_atomically(self._directory / _ACTIVE, announced.to_json())

    def _path(self, announcement: PolicyVersion) -> Path:
        # Zero-padded so that names sort by version; the digest, so that a re-made version is another file.
        name = f"{announcement.policy}-v{announcement.version:08d}-{announcement.sha256[:16]}.safetensors"
        return self._directory / name

    def _read(self, path: Path, event_type: type[S]) -> Announced[S] | None:
        try:
            return announced_from_json(path.read_text(), event_type)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, SchemaError) as error:
            raise PolicyRefused(f"{path} cannot be read: {error}") from error

    def _read_or_none(self, path: Path, event_type: type[S]) -> Announced[S] | None:
        try:
            return self._read(path, event_type)
        except PolicyRefused as error:
            _log.error("policy_file_unreadable", path=str(path), error=str(error))
            return None
