"""What a robot tells of itself on robot-status, again and again, and how its troubles fit into that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest

import structlog

# Heartbeats are short: with all around it, and as text, one must fit into a pipe at once (4,096 bytes).
_ERRORS, _ERROR_BYTES = 8, 250

_log = structlog.get_logger(__name__)


def told(*sources: Iterable[str]) -> tuple[str, ...]:
    """Of each source's troubles as many as there is room for, taken in turns: none hides those of another.

    At most 8 of 250 bytes as UTF-8; when there are more, the last one says how many.
    """
    found = [trouble for trouble in chain.from_iterable(zip_longest(*sources)) if trouble is not None]
    if len(found) > _ERRORS:
        found[_ERRORS - 1 :] = [f"and {len(found) - _ERRORS + 1} more troubles: see the robot's log"]
    return tuple(trouble.encode(errors="replace")[:_ERROR_BYTES].decode(errors="ignore") for trouble in found)


class Heartbeats:
    """Reports in a thread of its own, until `close`."""

    def __init__(self, report: Callable[[], None], interval: float) -> None:
        """Begin; `interval` is in seconds."""
        self._report = report
        self._interval = interval
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Report no more; waits for a report under way."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        trouble = ""
        while not self._over.wait(self._interval):
            try:
                self._report()
                trouble = ""
            except Exception as error:  # noqa: BLE001 - whatever it is, the next one may be told
                if trouble != repr(error):
                    trouble = repr(error)
                    _log.exception("heartbeat_not_sent")
