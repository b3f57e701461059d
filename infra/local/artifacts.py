"""The per-user cache of built servers: made once, shared by clones, never half-made.

An artifact is a directory named after everything that decides its content (name, version, JDK …). It is built
in a temporary directory beside its place, flushed to disk and renamed, so that it is either absent or whole,
whatever interrupts set-up. A file lock lets concurrent set-ups build it once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.files import sync_folder
from infra.local.progress import say, step


class BuildError(RuntimeError):
    """An artifact could not be built, or is not what was pinned."""


@dataclass(frozen=True)
class Artifact:
    """Something to build once per machine.

    `key` names its directory in the cache; `build` fills the empty directory it is given, and may raise;
    `title` is what set-up shows.
    """

    key: str
    title: str
    build: Callable[[Path], None]

    @property
    def path(self) -> Path:
        """Where the artifact is, or will be."""
        return cache_home() / self.key


def cache_home() -> Path:
    """Return this user's cache of servers: `$XDG_CACHE_HOME/sop`, by default `~/.cache/sop`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "sop"


def ensure(artifact: Artifact) -> Path:
    """Return the artifact's directory, building it if it is absent.

    Raises:
        BuildError: it could not be built.
        subprocess.CalledProcessError: a command of its build failed.
    """
    if artifact.path.is_dir():
        return artifact.path
    with locked(artifact.key, waiting_for=artifact.title):
        if not artifact.path.is_dir():
            _build(artifact)
    return artifact.path


def _build(artifact: Artifact) -> None:
    home = cache_home()
    prefix = f".tmp-{artifact.key}-"
    for leftover in home.glob(f"{prefix}*"):  # of a build that was killed: we hold its lock, so nobody uses it
        shutil.rmtree(leftover, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=prefix, dir=home))
    try:
        with step(artifact.title, grows=building):
            artifact.build(building)
            building.chmod(0o755)
            _flush(building)
        building.rename(artifact.path)
        sync_folder(home)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def locked(key: str, waiting_for: str) -> Iterator[None]:
    """Hold the cache's lock `key`; say so once if another set-up holds it now. Ends with the process."""
    locks = cache_home() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / f"{key}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{waiting_for}: another set-up is at it, waiting")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _flush(directory: Path) -> None:
    """Write all files and directories through to the disk, so that the rename cannot get there first."""
    for parent, _, files in os.walk(directory):
        for name in files:
            with (Path(parent) / name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(parent))
