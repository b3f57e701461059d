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
from producers.outbox import Item
from producers.spool.directory import SpoolDirectory
from producers.spool.messages import Begin, Offer, read_status
from producers.spool.publisher import Status

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_END_PATIENCE = 10.0

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
        self._trouble: str | None = None
        self._stopping = threading.Event()
        self._pipe = threading.Lock()
        self._offer = b""
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep, name="publisher", daemon=True)
        self._thread.start()

    def status(self) -> Status:
        """What it said last."""
        return self._status

    def errors(self) -> tuple[str, ...]:
        """What is wrong with it, or with what it does."""
        return tuple(error for error in (self._trouble, self._status.error, self._status.clone) if error)

    def offer(self, entry: Item) -> None:
        """Have a heartbeat sent; dropped when the publisher is not there or does not listen."""
        line = Offer.of(entry).line().encode()
        if len(line) > select.PIPE_BUF:
            _log.warning("heartbeat_too_long", bytes=len(line))
            return
        with self._pipe:
            process = self._process
            if process is None or process.stdin is None:
                self._offer = line
                return
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(process.stdin.fileno(), line)  # below PIPE_BUF all of it is written, or nothing

    def stop(self) -> None:
        """Have it send what it was offered, and end."""
        self._stopping.set()
        with self._pipe:
            process = self._process
            if process is not None:
                self._hang_up(process)
        if process is not None:
            try:
                process.wait(_END_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join()

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            heard = self._run()
            if self._stopping.is_set():
                return
            pause = _FIRST_PAUSE if heard else min(2 * pause, _LONGEST_PAUSE)
            _log.error("publisher_ended", error=self._trouble, again_in=pause)
            self._stopping.wait(pause)

    def _run(self) -> bool:
        """One life of the process; whether it ever said anything."""
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "producers.spool"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        except OSError as error:
            self._trouble = f"the publisher does not start: {error}"
            return False
        heard = False
        with process:
            assert process.stdin is not None  # noqa: S101
            assert process.stdout is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(self._begin.line())
                process.stdin.flush()
            os.set_blocking(process.stdin.fileno(), False)
            with self._pipe:
                self._process = process
                if self._offer:
                    os.write(process.stdin.fileno(), self._offer)
                    self._offer = b""
                if self._stopping.is_set():
                    self._hang_up(process)
            for line in process.stdout:
                try:
                    self._status = read_status(line)
                except (ValueError, TypeError):
                    _log.warning("publisher_not_understood", line=line[:200])
                    continue
                self._trouble = None
                heard = True
            with self._pipe:
                self._process = None
                self._hang_up(process)
        self._trouble = f"the publisher ended with {process.returncode}; it is started again"
        return heard

    def _hang_up(self, process: subprocess.Popen[str]) -> None:
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
