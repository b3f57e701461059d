"""Waiting on servers: every call has an end, every outage is waited out, and a stop is heard at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import structlog

from infra.backoff import Backoff
from infra.errors import DiskFull, Unavailable
from infra.health import Health
from infra.telemetry import UNAVAILABLE

_LOOK_SECONDS = 0.1
_ROOM_SECONDS = 2.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The process was asked to stop; unwinds to `learner.train.run`, which returns."""


class Patience:
    """Calls servers until they answer, or until `stop` is set."""

    def __init__(self, stop: threading.Event, health: Health | None = None) -> None:
        self._stop = stop
        self._health = health or Health()
        self._held_up: dict[str, str] = {}
        self._saying = threading.Lock()

    def held_up(self, why: str, what: str = "") -> None:
        """Why `what` waits though the servers answer otherwise; empty: it does not. Any thread may say so."""
        with self._saying:
            if why != self._held_up.get(what, ""):
                self._held_up.pop(what, None)
                if why:
                    self._held_up[what] = why
                self._say_ready()

    def _say_ready(self) -> None:
        why = "; ".join(self._held_up.values())
        self._health.set_ready(not why, why)

    def check(self) -> None:
        """Go on, unless a stop was asked for.

        Raises:
            Stopped: it was.
        """
        self._health.beat()
        if self._stop.is_set():
            raise Stopped

    def pause(self, seconds: float) -> None:
        """Wait, for seconds and not for minutes; raises Stopped as soon as a stop is asked for."""
        self._health.beat()
        if self._stop.wait(seconds):
            raise Stopped

    def wait_for_room(self, error: DiskFull) -> None:
        """The disk takes no more: wait a little for somebody to make room; raises Stopped after a stop."""
        UNAVAILABLE.labels("disk").inc()
        self._health.set_ready(False, str(error))
        _log.warning("waiting_for_room", error=str(error), retry_in=_ROOM_SECONDS)
        self.pause(_ROOM_SECONDS)

    def call(self, server: str, action: Callable[[], T]) -> T:
        """Result of `action`, tried with growing pauses while it raises Unavailable; other errors pass.

        It runs on a thread of its own, so that a server that hangs (its request has a bound of up to 30 s) does
        not hold up a stop. After a stop that thread is left to end by itself: nothing may rely on its outcome.

        Raises:
            Stopped: a stop was asked for.
        """
        backoff = Backoff()
        while True:
            try:
                result = self._on_thread(action)
                with self._saying:
                    self._say_ready()
                return result
            except Unavailable as error:
                UNAVAILABLE.labels(server).inc()
                self._health.set_ready(False, str(error))
                pause = backoff.failed()
                _log.warning("waiting_for_server", server=server, error=str(error), retry_in=pause)
                self.pause(pause)

    def _on_thread(self, action: Callable[[], T]) -> T:
        self.check()
        done = threading.Event()
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                results.append(action())
            except BaseException as error:  # noqa: BLE001 - carried to the thread that asked
                errors.append(error)
            finally:
                done.set()

        threading.Thread(target=work, name="learner-call", daemon=True).start()
        while not done.wait(_LOOK_SECONDS):
            self.check()
        if errors:
            raise errors[0]
        return results[0]
