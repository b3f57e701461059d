"""The publisher in a process of its own, as its robot sees it.

Not a thread: a thread that empties an hour's spool holds the interpreter for milliseconds at a time, and the
control loop waits for it (docs/benchmarks.md has numbers).
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import threading

import structlog

from infra.settings import Settings
from producers.kept_process import KeptProcess, hear
from producers.outbox import Item
from producers.owned import disown, own
from producers.spool.directory import SpoolDirectory
from producers.spool.messages import Begin, Offer, read_status
from producers.spool.publisher import Status

_log = structlog.get_logger(__name__)


class PublisherProcess:
    """Starts the publisher, starts it again when it dies, and hears from it."""

    def __init__(self, settings: Settings, directory: SpoolDirectory, robot_id: str, boot_epoch: int) -> None:
        self._begin = Begin(
            robot_id=robot_id,
            boot_epoch=boot_epoch,
            robot_pid=os.getpid(),
            directory=str(directory.path.resolve()),
            kafka=settings.kafka,
            registry=settings.registry,
            robot=settings.robot,
            s3=settings.s3,
        )
        self._status = Status(directory.acknowledged())
        self._pipe = threading.Lock()
        self._offer = b""
        self._process: subprocess.Popen[str] | None = None
        self._kept = KeptProcess("publisher", self._live)
        self._kept.start()

    def status(self) -> Status:
        """What it said last."""
        return self._status

    def errors(self) -> tuple[str, ...]:
        """What is wrong with it, or with what it does."""
        status = self._status
        return tuple(error for error in (self._kept.trouble, *status.errors, status.clone) if error)

    def offer(self, entry: Item) -> None:
        """Have a heartbeat sent; dropped when the publisher is not there or does not listen."""
        line = Offer.of(entry).line().encode()
        if len(line) > select.PIPE_BUF:
            _log.warning("heartbeat_too_long", bytes=len(line))
            return
        with self._pipe:
            process = self._process
            if process is None or process.stdin is None or process.stdin.closed:
                self._offer = line
                return
            with contextlib.suppress(OSError):
                os.write(process.stdin.fileno(), line)  # below PIPE_BUF all of it is written, or nothing

    def stop(self) -> None:
        """Have it send what it was offered, and end."""
        self._kept.stop(self._end)

    def _live(self) -> int:
        process = subprocess.Popen(
            [sys.executable, "-m", "producers.spool"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None  # noqa: S101
        own(process.stdin.fileno())
        try:
            with contextlib.suppress(OSError):  # one that is gone already says so by its exit code
                process.stdin.write(self._begin.line())
                process.stdin.flush()
                os.set_blocking(process.stdin.fileno(), False)
            with self._pipe:
                self._process = process
                with contextlib.suppress(OSError):
                    if self._offer:
                        os.write(process.stdin.fileno(), self._offer)
                        self._offer = b""
                if self._kept.stopping:
                    self._hang_up(process)
            return hear(process, self._hear)
        finally:
            with self._pipe:
                self._process = None
                self._hang_up(process)

    def _hear(self, line: str) -> None:
        try:
            status = read_status(line)
        except (ValueError, TypeError, KeyError):
            _log.warning("publisher_not_understood", line=line[:200])
            return
        self._kept.trouble = None  # first: who sees the status does not hear of the life before any more
        self._status = status

    def _end(self) -> subprocess.Popen[str] | None:
        with self._pipe:
            if self._process is not None:
                self._hang_up(self._process)
            return self._process

    def _hang_up(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                disown(process.stdin.fileno())
                process.stdin.close()
