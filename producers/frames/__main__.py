"""The encoder's process; `link.py` starts it.

When its robot is killed it goes on until what was handed over is on disk as whole segments, and then ends.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import signal
import sys
import time
from pathlib import Path

import numpy as np
import structlog

from infra.telemetry import configure_logging
from producers.frames.directory import FrameDirectory
from producers.frames.encoder import EpisodeEncoder
from producers.frames.messages import Kind, Splitter, Told, free

# While an episode is open the robot is not made to wake anybody: the encoder looks by itself.
_LOOK_EVERY = 0.005
# Else it looks whether there still is a robot: its input does not end where another process has it, too.
_ALIVE_EVERY = 1.0
_NICE = 5
_READ = 1 << 16

_log = structlog.get_logger(__name__)


def main() -> None:
    """Encode until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the robot says when it is over, by the end of the input
    options = json.loads(sys.argv[1])
    configure_logging(f"{options['robot_id']}-frames")
    os.nice(_NICE)
    directory = FrameDirectory(Path(options["directory"]))
    lock = os.open(directory.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    memory = mmap.mmap(options["memory"], 0, prot=mmap.PROT_READ)
    encoding = _Encoding(directory, memory, options["free"], options["segment_steps"], options["min_free"])
    _tell(Told(ready=True))
    splitter = Splitter()
    os.set_blocking(0, False)
    while True:
        gone = os.getppid() != options["robot_pid"]  # asked first: what it handed over before is taken
        try:
            data = os.read(0, _READ)
        except BlockingIOError:
            if gone:
                break
            if encoding.open:
                time.sleep(_LOOK_EVERY)
            else:
                select.select([0], [], [], _ALIVE_EVERY)
            continue
        if not data:
            break
        for kind, camera, step, offset, name in splitter.feed(data):
            encoding.take(kind, camera, step, offset, name)
    encoding.finish()


class _Encoding:
    def __init__(
        self, directory: FrameDirectory, memory: mmap.mmap, free_pipe: int, segment_steps: int, min_free: int
    ) -> None:
        self._directory, self._memory, self._free = directory, memory, free_pipe
        self._segment_steps, self._min_free = segment_steps, min_free
        self._encoder: EpisodeEncoder | None = None
        self._episode_id = ""

    @property
    def open(self) -> bool:
        return self._encoder is not None

    def take(self, kind: Kind, camera: int, step: int, offset: int, name: str) -> None:
        if kind is Kind.BEGIN:
            self.finish()
            self._episode_id = name
            self._encoder = EpisodeEncoder(
                self._directory.episode(name), self._segment_steps, self._min_free, _complain
            )
        elif kind is Kind.END:
            self.finish()
            _tell(Told(done=self._episode_id))
        elif kind is Kind.FRAME and self._encoder is not None:
            one = self._encoder.cameras[camera]
            image = np.ndarray(one.shape, one.dtype, self._memory, offset)
            self._encoder.add(camera, step, image)
            _write(self._free, free(camera, offset))

    def finish(self) -> None:
        if self._encoder is not None:
            self._encoder.finish()
            self._encoder = None


def _complain(text: str) -> None:
    _log.warning("frames_dropped", error=text)
    _tell(Told(error=text))


def _tell(said: Told) -> None:
    try:
        sys.stdout.write(said.line())
        sys.stdout.flush()
    except BrokenPipeError:
        # The robot is gone; what it handed over is still encoded.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


def _write(pipe: int, data: bytes) -> None:
    try:
        os.write(pipe, data)
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main()
