"""Server processes that cannot outlive whoever started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue

__all__ = ["freeze", "kill", "spawn", "stop", "thaw"]

_FROZEN_SECONDS = 10.0
_LEASH = Path(__file__).with_name("leash.py")


def spawn(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path, cwd: Path
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, output appended to `log`, killed when this process ends.

    Raises:
        OSError: it could not be started.
    """
    # The kernel's death signal follows the thread that forked, not the process; hence one thread that stays.
    job: Future[subprocess.Popen[bytes]] = Future()
    _spawner.jobs.put((job, list(command), dict(environment), log, cwd))
    return job.result(timeout=30)


def stop(processes: Sequence[subprocess.Popen[bytes]], *, patience: float) -> None:
    """End the processes: SIGTERM to all, SIGKILL to those still there after `patience` seconds."""
    for process in processes:
        _send(process, signal.SIGTERM)
        _send(process, signal.SIGCONT)  # a paused process would never see the first
    deadline = time.monotonic() + patience
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)
    for process in processes:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the process with SIGKILL and wait until it is gone."""
    _send(process, signal.SIGKILL)
    process.wait(timeout=30)


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Stop the process with SIGSTOP, and wait until all of its threads stand still."""
    _send(process, signal.SIGSTOP)
    until = time.monotonic() + _FROZEN_SECONDS
    while process.poll() is None and time.monotonic() < until:
        if os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.002)


def thaw(process: subprocess.Popen[bytes]) -> None:
    """Let a frozen process go on."""
    _send(process, signal.SIGCONT)


def _send(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(number)


_Job = tuple["Future[subprocess.Popen[bytes]]", list[str], dict[str, str], Path, Path]


class _Spawner:
    """A thread that lives as long as this process and starts all servers."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        threading.Thread(target=self._run, name="spawner", daemon=True).start()

    def _run(self) -> None:
        while True:
            job, command, environment, log, cwd = self.jobs.get()
            try:
                job.set_result(self._start(command, environment, log, cwd))
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                job.set_exception(error)

    @staticmethod
    def _start(command: list[str], environment: dict[str, str], log: Path, cwd: Path) -> subprocess.Popen[bytes]:
        leashed = [sys.executable, "-I", "-S", str(_LEASH), str(os.getpid()), *command]
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            return subprocess.Popen(
                leashed,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)


_spawner = _Spawner()
