"""HTTP as curl speaks it, to ClickHouse's gateway."""

from __future__ import annotations

import http.client
import time
from base64 import b64encode
from collections.abc import Callable
from urllib.parse import quote

from infra.local.stack import Stack


class Plain:
    """HTTP as curl speaks it."""

    def __init__(self, stack: Stack, user: str) -> None:
        settings = stack.environment()
        self.host, self.port = settings["SOP_CLICKHOUSE__HOST"], int(settings["SOP_CLICKHOUSE__PORT"])
        pair = f"{settings[user + 'USERNAME']}:{settings[user + 'PASSWORD']}"
        self.headers = {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}

    @classmethod
    def of(cls, host: str, port: int, user: str, password: str) -> Plain:
        """A client of another gateway than a stack's."""
        made = cls.__new__(cls)
        made.host, made.port = host, port
        made.headers = {"Authorization": f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"}
        return made

    def post(
        self, query: str, body: bytes = b"", *, timeout: float = 180, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", f"/?{query}", body, {**self.headers, **named})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers

    def get(self, sql: str, path: str = "/") -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=180)
        connection.request("GET", f"{path}?query={quote(sql)}", headers=self.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()


def wait_until(condition: Callable[[], bool]) -> None:
    """Fail if it does not come true within three minutes."""
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within three minutes"
        time.sleep(0.05)
