"""Free loopback ports, remembered by a data directory so that its servers come back at the same addresses."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from infra.files import write_atomically
from infra.local.artifacts import cache_home

# Below Linux's range for outgoing connections (32768-60999), so that no client of somebody's takes a port while
# its server is down for a restart.
_FIRST, _LAST = 20_000, 32_000


class NoFreePortError(Exception):
    """No free loopback port was found."""


class Ports:
    """The ports of one data directory, reserved until `close` or the end of this process.

    A reservation is a lock on a file per port, which keeps two stacks of one user apart while the servers
    themselves do not listen yet, or are restarting.
    """

    def __init__(self, memory: Path, names: Sequence[str]) -> None:
        """Reserve a port for each name: the one remembered in `memory` if it is still free, else another.

        Raises:
            NoFreePortError: no free port was found.
        """
        self._locks: list[int] = []
        self._keep = False
        remembered = _read(memory)
        self.numbers = {name: self._reserve(remembered.get(name)) for name in names}
        if self.numbers != remembered:
            write_atomically(memory, json.dumps(self.numbers, indent=2) + "\n")

    def keep(self) -> None:
        """Hold the ports beyond the `with` block, until `close`."""
        self._keep = True

    def __enter__(self) -> Ports:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._keep:
            self.close()

    def close(self) -> None:
        """Give the ports back."""
        while self._locks:
            os.close(self._locks.pop())

    def _reserve(self, preferred: int | None) -> int:
        candidates = random.sample(range(_FIRST, _LAST), 200)
        for port in [preferred, *candidates] if preferred else candidates:
            if self._take(port):
                return port
        self.close()
        raise NoFreePortError(f"no free port on 127.0.0.1 among 200 tried between {_FIRST} and {_LAST}")

    def _take(self, port: int) -> bool:
        directory = cache_home() / "ports"
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / str(port), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # connections in TIME_WAIT do not matter
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            return False
        self._locks.append(lock)
        return True


def _read(memory: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(memory.read_text()).items()}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return {}
