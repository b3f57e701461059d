"""The encoder in a process of its own, as its robot sees it; started again when it dies.

Not a thread: it would compete with the control loop for the interpreter, and die with the robot's process. This
one brings what was handed over to the disk when the robot is killed.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import structlog

from producers.frames import messages
from producers.kept_process import KeptProcess, hear
from producers.owned import close, own

_END_PATIENCE = 10.0

_log = structlog.get_logger(__name__)


class Life:
    """One life of the process: pipes that never make the robot wait.

    They are closed with the last reference: whoever still writes to a process that died must not find its
    descriptor's number in use by another file.
    """

    def __init__(self, process: subprocess.Popen[str], work: int, free: int) -> None:
        self.process = process
        self._work: int | None = own(work)
        self._free = own(free)
        os.set_blocking(work, False)
        os.set_blocking(free, False)
        self._splitter = messages.Splitter()

    def __del__(self) -> None:
        self.hang_up()
        close(self._free)

    def hang_up(self) -> None:
        """End of its input; for the thread that sends."""
        if self._work is not None:
            close(self._work)
            self._work = None

    def send(self, data: bytes) -> bool:
        """Hand a message over; False when the process is gone or does not listen."""
        if self._work is None:
            return False
        try:
            return os.write(self._work, data) == len(data)
        except OSError:
            return False

    def freed(self) -> list[tuple[int, int]]:
        """Camera and offset of the places that are free again."""
        found: list[tuple[int, int]] = []
        with contextlib.suppress(OSError):
            while data := os.read(self._free, 1 << 16):
                found += [(camera, offset) for _, camera, _, offset, _ in self._splitter.feed(data)]
        return found


class EncoderProcess:
    """Keeps an encoder for the frames below `directory`; `memory_bytes` are shared with it."""

    def __init__(
        self, directory: Path, robot_id: str, memory_bytes: int, *, segment_steps: int, min_free: int
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._descriptor = _anonymous(memory_bytes)
        self.memory = mmap.mmap(self._descriptor, memory_bytes)
        # Now, and not in the control loop, the system finds its pages.
        for at in range(0, memory_bytes, mmap.PAGESIZE):
            self.memory[at] = 0
        self._options = {
            "directory": str(directory.resolve()),
            "robot_id": robot_id,
            "segment_steps": segment_steps,
            "min_free": min_free,
            "memory": self._descriptor,
            "robot_pid": os.getpid(),
        }
        self.life: Life | None = None
        self._error: str | None = None
        self._done = ""
        self._changed = threading.Condition()
        self._kept = KeptProcess("encoder of frames", self._live)
        self._kept.start()

    def wait_ready(self, timeout: float) -> bool:
        """Wait until there is one that listens; False if there is none in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self.life is not None, timeout)

    def wait_done(self, episode_id: str, life: Life, timeout: float) -> bool:
        """Wait until the process has an episode on disk; False if it died, or needs longer."""
        with self._changed:
            self._changed.wait_for(lambda: self._done == episode_id or self.life is not life, timeout)
            return self._done == episode_id

    def errors(self) -> tuple[str, ...]:
        """What is wrong with it, or with what it does."""
        return tuple(error for error in (self._kept.trouble, self._error) if error)

    def forget_errors(self) -> None:
        """What was wrong in an episode before is told; a new one begins."""
        self._error = None

    def kill(self, life: Life) -> None:
        """End one that hangs, and wait until it is gone; another one is started."""
        life.process.kill()
        with self._changed:
            self._changed.wait_for(lambda: self.life is not life, _END_PATIENCE)

    def stop(self) -> None:
        """Have it finish, and end."""
        self._kept.stop(self._end)
        with contextlib.suppress(BufferError):  # an episode that was never ended still looks at it
            self.memory.close()
        os.close(self._descriptor)

    def _live(self) -> int:
        taking, work = os.pipe()
        free, giving = os.pipe()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "producers.frames", json.dumps(self._options | {"free": giving})],
                stdin=taking,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=(self._descriptor, giving),
            )
        except OSError:
            os.close(work)
            os.close(free)
            raise
        finally:
            os.close(taking)
            os.close(giving)
        life = Life(process, work, free)
        try:
            return hear(process, lambda line: self._hear(line, life))
        finally:
            with self._changed:
                self.life = None
                self._changed.notify_all()

    def _end(self) -> subprocess.Popen[str] | None:
        with self._changed:
            life = self.life
            self._changed.notify_all()
        if life is None:
            return None
        life.hang_up()
        return life.process

    def _hear(self, line: str, life: Life) -> None:
        try:
            said = messages.told(line)
        except (ValueError, TypeError):
            _log.warning("encoder_not_understood", line=line[:200])
            return
        with self._changed:
            if said.ready:
                self.life, self._kept.trouble = life, None
                if self._kept.stopping:
                    life.hang_up()
            self._done = said.done or self._done
            self._error = said.error or self._error
            self._changed.notify_all()


def _anonymous(size: int) -> int:
    """Descriptor of memory without a name, which is gone with the last process that has it."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("sop-frames")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor
