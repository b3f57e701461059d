"""The spool as the robot's client sees it: an `Outbox` that survives the process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from infra.clock import Clock
from infra.settings import Settings
from producers.clock_offset import ClockOffset
from producers.errors import Undelivered
from producers.outbox import Item
from producers.spool.directory import SpoolDirectory
from producers.spool.process import PublisherProcess
from producers.spool.publisher import Status
from producers.spool.store import SpoolStore
from producers.tail import Tail

_log = structlog.get_logger(__name__)


class PublisherLink(Protocol):
    """What the robot needs of whoever publishes its spool."""

    def status(self) -> Status:
        """What it said last."""

    def errors(self) -> tuple[str, ...]:
        """What is wrong, in words."""

    def offer(self, entry: Item) -> None:
        """Have a heartbeat sent; it may be lost."""

    def stop(self) -> None:
        """Have it send what it was offered, and end."""


class SpoolOutbox:
    """Appends to the spool in `path`; a process beside takes it to Kafka. Implements `Outbox`.

    `reserve` and `append` are for one thread; any other may call the rest. Opening ends what an earlier boot left
    open as ABORTED, before anything new.

    Raises:
        SpoolUnusable: the spool cannot be opened.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path,
        robot_id: str,
        boot_epoch: int,
        clock: Clock,
        *,
        publish: Callable[[Settings, SpoolDirectory, str, int], PublisherLink] = PublisherProcess,
    ) -> None:
        self._directory = SpoolDirectory(path)
        self._clock = clock
        self._store = SpoolStore(self._directory, settings.robot, robot_id, boot_epoch)
        self.append = self._store.append
        """Record an event; see `Outbox`. No method of its own: it is called in the control loop."""
        self._publisher = publish(settings, self._directory, robot_id, boot_epoch)
        self._warned = False
        self._used = 0

    def reserve(self, steps: int, step_bytes: int, frame_bytes: int = 0) -> int:
        """Keep room; see `Outbox`."""
        return self._store.room.reserve(steps, step_bytes, frame_bytes)

    def settle(self) -> Tail:
        """Count anew; see `Outbox`."""
        return self._store.settle()

    def offer(self, entry: Item) -> None:
        """Send without looking back; see `Outbox`."""
        self._publisher.offer(entry)

    def depth(self) -> int:
        """Events recorded and not acknowledged."""
        return max(0, self._store.last - self._publisher.status().acknowledged)

    def age_seconds(self) -> float:
        """Age of the oldest of them, by the robot's clock."""
        oldest = self._publisher.status().oldest_at
        if oldest is None or not self.depth():
            return 0.0
        return max(0.0, self._clock.now().timestamp() - oldest)

    def used_bytes(self) -> int:
        """Disk that the spool's files take; as it was last, while the disk does not say (`errors` does)."""
        with contextlib.suppress(OSError):
            self._used = self._directory.used_bytes()
        return self._used

    def clock_offset(self) -> ClockOffset | None:
        """As the publisher estimates it."""
        return self._publisher.status().clock_offset

    def errors(self) -> tuple[str, ...]:
        """Of the spool, and of the publisher."""
        found = list(self._publisher.errors())
        warning = self._store.room.warning()
        if warning is not None:
            found.insert(0, warning)
            if not self._warned:
                _log.warning("spool_fills", warning=warning)
        self._warned = warning is not None
        try:
            if aside := self._directory.aside():
                found.append(f"{len(aside)} events larger than Kafka takes were not sent: see {aside[0].parent}")
            if damaged := self._directory.quarantined():
                found.append(f"{len(damaged)} damaged spool files are in quarantine: see {damaged[0].parent}")
        except OSError as error:
            found.append(f"what the spool put aside cannot be listed: {error}")
        return tuple(found)

    def drain(self, timeout: float) -> None:
        """Wait for Kafka; see `Outbox`."""
        until = time.monotonic() + timeout
        while self.depth() and time.monotonic() < until:
            time.sleep(0.01)

    def close(self, timeout: float) -> None:
        """Wait for Kafka, then let go; see `Outbox`."""
        self.drain(timeout)
        self._publisher.stop()
        depth = self.depth()
        self._store.close()
        if depth:
            why = f" ({'; '.join(self._publisher.errors())})" if self._publisher.errors() else ""
            raise Undelivered(
                f"{depth} events were not acknowledged by Kafka in time{why}; they "
                f"are kept in {self._directory.path} and sent when the robot's client is started again"
            )
