"""Commands of this project as processes of their own that begin with its packages loaded.

A learner that starts takes seconds to load what it needs, and the tests start and kill many. Here each is forked
off a process that has loaded it and done nothing else; arguments, environment and streams are its own.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# One for each process of the tests: whoever comes first says what is loaded.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "tests.preloaded",
        "tests.producers.spool.victim",
        "sop",
        "consumers.index",
        "consumers.materializer",
        "learner.backfill",
        "learner.present",
        "learner.reproduce",
        "learner.train",
    ]
)


class Command:
    """`python -m ARGUMENTS...`, started; with the methods of `subprocess.Popen` that the tests use."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], out: Path, errors: Path) -> None:
        for path in (out, errors):
            path.touch()  # whoever reads it may come before the process does
        self._process = CONTEXT.Process(target=_become, args=(list(arguments), dict(environment), out, errors))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """As `subprocess.Popen`'s: minus the signal's number for one that was killed."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once there is one.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """To one that still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS...` until it ends, with what it wrote."""
    with tempfile.TemporaryDirectory() as name:
        out, errors = Path(name) / "out", Path(name) / "errors"
        code = Command(arguments, environment, out, errors).wait()
        return subprocess.CompletedProcess(list(arguments), code, out.read_text(), errors.read_text())


def _become(arguments: list[str], environment: dict[str, str], out: Path, errors: Path) -> None:
    for number, path in ((1, out), (2, errors)):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
