"""What a data directory says about its stack: `lock`, held while one runs, and `stack.json`, its last state."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

from infra.files import write_atomically

STARTING, RUNNING, STOPPED, DEAD = "starting", "running", "stopped", "dead"
SUPERVISOR, EMBEDDED = "supervisor", "embedded"


class DirectoryInUseError(Exception):
    """A stack runs on the data directory."""


@dataclass
class ServerRecord:
    """One server in stack.json; `started` is the kernel's start time of `pid`, which tells a reused pid apart."""

    address: str
    state: str = STARTING
    pid: int = 0
    started: str = ""
    version: str = ""


@dataclass
class Record:
    """The whole of stack.json; `error` says why the last start failed."""

    owner: str
    owner_pid: int
    state: str
    servers: dict[str, ServerRecord] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def starting(cls, owner: str, addresses: Mapping[str, str]) -> Record:
        """Return the record of a stack that this process is about to start."""
        return cls(owner, os.getpid(), STARTING, {name: ServerRecord(a) for name, a in addresses.items()})


def write(data_dir: Path, record: Record) -> None:
    """Replace stack.json."""
    write_atomically(data_dir / "stack.json", json.dumps(asdict(record), indent=2) + "\n")


def read(data_dir: Path) -> Record | None:
    """Return the last state; None if there is none, or it is from something else."""
    try:
        found = json.loads((data_dir / "stack.json").read_text())
        servers = {name: ServerRecord(**entry) for name, entry in found.pop("servers").items()}
        return Record(**found, servers=servers)
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_running(data_dir: Path) -> bool:
    """Say whether a stack, or one that starts or stops, owns the data directory now."""
    try:
        DirectoryLock.take(data_dir).close()
    except DirectoryInUseError:
        return True
    except OSError:
        return False
    return False


def start_time(pid: int) -> str | None:
    """Return when the process started (kernel ticks), or None if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def clear_leftovers(data_dir: Path) -> None:
    """Wait until the servers of a stack that crashed here are gone: the kernel is killing them."""
    record = read(data_dir)
    deadline = time.monotonic() + 5.0
    for server in record.servers.values() if record else []:
        while server.pid and server.started and start_time(server.pid) == server.started:
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(server.pid, signal.SIGKILL)
                deadline += 5.0
            time.sleep(0.02)


class DirectoryLock:
    """The lock on a data directory. Leaving the `with` block releases it, unless `keep` was called."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._keep = descriptor, False

    @classmethod
    def take(cls, data_dir: Path) -> DirectoryLock:
        """Take the lock of an existing directory.

        Raises:
            DirectoryInUseError: another process, or another stack in this one, holds it.
        """
        descriptor = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise DirectoryInUseError(f"a stack runs on {data_dir}") from None
        return cls(descriptor)

    @property
    def held(self) -> bool:
        """Whether the lock is still held."""
        return self._descriptor >= 0

    def keep(self) -> None:
        """Hold the lock beyond the `with` block, until `close`."""
        self._keep = True

    def close(self) -> None:
        """Release the lock."""
        if self.held:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> DirectoryLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._keep:
            self.close()
