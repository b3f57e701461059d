"""One HTTP exchange, for the thread that runs the query: it pulls the body and pushes the response.

Pulling keeps the body in the client until the engine takes it: an INSERT of any size needs little memory here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Read and dropped of a body after an error: to a client that still sends, an answer would be a broken pipe.
_MOST_DRAINED_BYTES = 64 << 20


class DisconnectedError(Exception):
    """The client is gone."""


class Exchange:
    """Made in the event loop; `read`, `start`, `send` and `drain` are for one other thread."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._receive, self._send = receive, send
        self._body_is_in = asyncio.Event()
        self.gone = threading.Event()
        self.started = False
        self._cancel: Callable[[], None] | None = None
        self._cancelling = threading.Lock()

    def read(self) -> bytes | None:
        """Return a piece of the body, or None at its end.

        Raises:
            DisconnectedError: the client is gone.
        """
        while not self._body_is_in.is_set():
            piece = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if piece:
                return piece
        return None

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send status and headers."""
        self.started = True
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
        self._push({"type": "http.response.start", "status": status, "headers": encoded})

    def send(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the response's body; waits while the client does not read."""
        self._push({"type": "http.response.body", "body": data, "more_body": more})

    def drain(self) -> None:
        """Read the rest of the body away, within bounds."""
        size = 0
        while size < _MOST_DRAINED_BYTES:
            piece = self.read()
            if piece is None:
                return
            size += len(piece)

    @contextmanager
    def cancellable(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Within the block `cancel` is called, in some thread, if the client goes away; never after it."""
        with self._cancelling:
            self._cancel = cancel
        try:
            if self.gone.is_set():
                raise DisconnectedError
            yield
        finally:
            with self._cancelling:
                self._cancel = None

    async def watch(self) -> None:
        """Note when the client goes away while its query runs. For the event loop."""
        await self._body_is_in.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone.set()
        await self._loop.run_in_executor(None, self._cancel_now)

    def _cancel_now(self) -> None:
        with self._cancelling:
            if self._cancel:
                self._cancel()

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.gone.set()
            raise DisconnectedError
        if not message.get("more_body", False):
            self._body_is_in.set()
        return bytes(message.get("body", b""))

    def _push(self, message: Message) -> None:
        sending = self._send(message)
        asyncio.run_coroutine_threadsafe(_awaited(sending), self._loop).result()


async def _awaited(sending: Awaitable[None]) -> None:
    await sending
