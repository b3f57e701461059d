"""An artifact on its way to the robot's disk: in parts, resumed after a restart, no faster than allowed."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

from infra.errors import ObjectMissing
from producers.errors import PolicyRefused
from producers.policy_feed import PolicyFeed
from producers.policy_link import Link
from producers.policy_store import verify
from schemas.events import PolicyVersion

# Bytes that the disk has before more are written: the spool's write() waits behind what others wrote. Not fewer: a
# sync takes 8 ms on a fast disk, and pieces of 1 MiB came at 110 MB/s at most.
_PIECE = 4 * 2**20

Between = Callable[[float], None]
"""Called before each part, and after the last: waits so many seconds, and raises what ends the download."""


class Interrupted(Exception):
    """A stop was asked for; what has arrived stays."""


class Outdated(Exception):
    """Another version is to run; what has arrived stays."""


class NotNow(PolicyRefused):
    """It cannot be had now: there is no room, no artifact, or another one than announced. Somebody may mend that.

    Attributes:
        dear: it took the whole download to find out.
    """

    def __init__(self, text: str, *, dear: bool = False) -> None:
        super().__init__(text)
        self.dear = dear


def download(  # noqa: PLR0917
    announcement: PolicyVersion, path: Path, feed: PolicyFeed, link: Link, between: Between, keep_free: int
) -> None:
    """Bring an artifact to `path`, going on with what lies there; verified and durable when this returns.

    Args:
        announcement: what to bring.
        path: where to; its folder exists.
        feed: where from.
        link: how much at once, and how fast.
        between: see `Between`.
        keep_free: bytes that the disk has left when all of it is there.

    Raises:
        NotNow: it is missing, or not what was announced, and nothing is left; or the disk has no room, and what
            has come stays.
        InfraError, OSError: try again; what has come stays.
    """
    name = f"{announcement.policy} v{announcement.version}"
    try:
        size = feed.size(announcement)
    except ObjectMissing as error:
        raise NotNow(f"{name}: there is no artifact at {announcement.artifact_uri}") from error
    if size != announcement.size_bytes:
        path.unlink(missing_ok=True)
        raise NotNow(f"{name}: {size} bytes, announced were {announcement.size_bytes}")
    for resumed in (True, False) if path.exists() else (False,):
        try:
            _fill(announcement, path, feed, link, between, keep_free)
        except NotNow:
            raise
        except PolicyRefused as error:
            path.unlink(missing_ok=True)
            if not resumed:  # else what lay there may have been what is wrong
                raise NotNow(str(error), dear=True) from error
        else:
            return


def _fill(  # noqa: PLR0917
    announcement: PolicyVersion, path: Path, feed: PolicyFeed, link: Link, between: Between, keep_free: int
) -> None:
    with path.open("a+b") as file:
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        done = file.tell()
        while (left := announcement.size_bytes - done) > 0:
            length = link.length(left)
            between(link.pause(length))
            _require_room(announcement, path, left, keep_free)
            part = link.read(partial(feed.read, announcement, done, length))
            if len(part) == 0:
                break
            _append(file, part)
            digest.update(part)
            done += len(part)
        between(0.0)
    verify(announcement, done, digest.hexdigest())


def _append(file: BinaryIO, part: memoryview) -> None:
    for start in range(0, len(part), _PIECE):
        file.write(part[start : start + _PIECE])
        file.flush()
        os.fdatasync(file.fileno())


def _require_room(announcement: PolicyVersion, path: Path, left: int, keep_free: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if free - left < keep_free:
        raise NotNow(
            f"{announcement.policy} v{announcement.version}: {left / 2**20:.1f} MiB are still to come, the disk "
            f"has {free / 2**20:.1f} MiB left, and {keep_free / 2**20:.1f} MiB stay free. Free some, or lower "
            f"SOP_POLICIES__MIN_FREE_BYTES"
        )
