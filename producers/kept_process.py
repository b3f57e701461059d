"""A process beside the robot's, started again when it ends, with growing pauses, until it is to end."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable

import structlog

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_END_PATIENCE = 10.0

_log = structlog.get_logger(__name__)


class KeptProcess:
    """Lives one life of the process after the other in a thread, whatever one of them ends with.

    Attributes:
        trouble: what is wrong with it, in words; None while all is well.
    """

    def __init__(self, what: str, live: Callable[[], int]) -> None:
        """Nothing lives before `start`.

        Args:
            what: its name for people.
            live: starts the process and hears it until it ends; its exit code. OSError: it does not start.
        """
        self.trouble: str | None = None
        self._what = what
        self._live = live
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=what, daemon=True)

    def start(self) -> None:
        """Begin; once only."""
        self._thread.start()

    @property
    def stopping(self) -> bool:
        """It is to end, and none is started any more."""
        return self._stopping.is_set()

    def stop(self, hang_up: Callable[[], subprocess.Popen[str] | None]) -> None:
        """Wait until it has ended; one that takes longer than 10 s is killed.

        Args:
            hang_up: ends the input of the process that there is, if there is one, and returns it.
        """
        self._stopping.set()
        process = hang_up()
        if process is not None:
            try:
                process.wait(_END_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(_END_PATIENCE)

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                code = self._live()
                if self._stopping.is_set():
                    self.trouble = f"the {self._what} ended with {code}" if code else None
                    return
                self.trouble = f"the {self._what} ended with {code}; it is started again"
            except OSError as error:
                self.trouble = f"the {self._what} does not start: {error}"
            except Exception as error:  # noqa: BLE001 - whatever it is, a robot without this process tells nobody
                self.trouble = f"the {self._what} is not understood: {error!r}; it is started again"
                _log.exception("process_not_kept", process=self._what)
            if self._stopping.is_set():
                return
            pause = _FIRST_PAUSE if time.monotonic() - begun > _LONGEST_PAUSE else min(2 * pause, _LONGEST_PAUSE)
            _log.error("process_ended", process=self._what, error=self.trouble, again_in=pause)
            self._stopping.wait(pause)


def hear(process: subprocess.Popen[str], line: Callable[[str], None]) -> int:
    """Take what a process says until it ends; its exit code. One that cannot be heard is killed."""
    assert process.stdout is not None  # noqa: S101
    try:
        for text in process.stdout:
            line(text)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        process.stdout.close()
    return process.wait()
