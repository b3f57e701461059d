"""What a long process tells whoever watches it: `/health`, `/ready` and `/metrics` over HTTP.

`/health` answers 200 while the main loop turns, else 503: whoever gets that should restart the process. `/ready`
answers 200 while the process can do its work, else 503 with the reason: it mends itself, and needs no restart.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from infra.clock import Clock, SystemClock

STALL_SECONDS = 180.0
"""Silence of the loop that counts as a stall. Its longest lawful turn is a take-over: 30 s to settle an old
transaction, 60 s to read what was announced, and the requests before and after, each within its own bound."""

_StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Health:
    """How the main loop of this process is doing. Threads may share it.

    Before its first beat a process counts as healthy: waiting for its servers has a bound of its own.
    """

    def __init__(self, clock: Clock | None = None, *, stall_after: float = STALL_SECONDS) -> None:
        self._clock = clock or SystemClock()
        self._stall_after = stall_after
        self._beat_at: float | None = None
        self._ready = (False, "starting")

    def beat(self) -> None:
        """The loop has turned once more."""
        self._beat_at = self._clock.monotonic()

    def set_ready(self, ready: bool, why: str = "") -> None:
        """Whether the process can do its work now, and if not, why."""
        self._ready = (ready, why)

    def health(self) -> tuple[bool, str]:
        """Whether the loop turns, and how long ago it last did."""
        if self._beat_at is None:
            return True, "starting"
        silent = self._clock.monotonic() - self._beat_at
        turning = silent <= self._stall_after
        return turning, f"the loop turned {silent:.1f} s ago" + ("" if turning else ": stalled, restart it")

    def readiness(self) -> tuple[bool, str]:
        """Whether the process can do its work; a stalled one cannot."""
        turning, text = self.health()
        ready, why = self._ready
        return (ready, why or "ready") if turning else (False, text)


class HealthServer:
    """Serves them on a thread of its own, until closed.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, health: Health, port: int, host: str = "127.0.0.1") -> None:
        self._server = make_server(host, port, _app(health), _Server, _Quiet)
        self.port: int = self._server.server_address[1]
        """The port in use; another than asked for if that was 0."""
        threading.Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop serving, and free the port."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    """One slow reader does not keep the others waiting."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    """Probes come every few seconds: they are not worth a line in the log each."""

    timeout = 10.0  # of the connection: a client that sends nothing does not keep a thread

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        """Say nothing."""


def _app(health: Health) -> Callable[[dict[str, Any], _StartResponse], Iterable[bytes]]:
    metrics = make_wsgi_app()
    pages: dict[str, Callable[[], tuple[bool, str]]] = {"/health": health.health, "/ready": health.readiness}

    def app(environ: dict[str, Any], start_response: _StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            answer: Iterable[bytes] = metrics(environ, start_response)
            return answer
        plain = [("Content-Type", "text/plain; charset=utf-8")]
        if path not in pages:
            start_response("404 Not Found", plain)
            return [b"/health, /ready and /metrics are here\n"]
        good, text = pages[path]()
        start_response("200 OK" if good else "503 Service Unavailable", plain)
        return [f"{text}\n".encode()]

    return app
