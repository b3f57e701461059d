"""One HTTP exchange, for the thread that runs the query: it pulls the body and pushes the response.

Pulling keeps the body in the client until the engine takes it: an INSERT of any size needs little memory here.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, TypeVar

from infra.local.clickhouse.errors import SOCKET_TIMEOUT, QueryError

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# Sent at once. A client that takes less than this within the patience has stopped reading.
_PIECE_BYTES = 256 << 10
# Read and dropped of a body after an error: to a client that still sends, an answer would be a broken pipe.
_MOST_DRAINED_BYTES = 64 << 20


class DisconnectedError(Exception):
    """The client is gone."""


class Exchange:
    """Made in the event loop; `read`, `start`, `send` and `drain` are for one other thread."""

    def __init__(self, receive: Receive, send: Send, patience: float) -> None:
        """Wait at most `patience` seconds for a piece of the body, or until a piece of the response is taken."""
        self._loop = asyncio.get_running_loop()
        self._receive, self._send, self._patience = receive, send, patience
        self.body_is_left = False
        self._body_is_in = asyncio.Event()
        self.gone = threading.Event()
        self.started = False
        self._cancel: Callable[[], None] | None = None
        self._cancelling = threading.Lock()

    def read(self) -> bytes | None:
        """Return a piece of the body, or None at its end.

        Raises:
            DisconnectedError: the client is gone.
            QueryError: it sends no more.
        """
        deadline = time.monotonic() + self._patience
        while not self._body_is_in.is_set():
            try:
                piece = self._in_loop(self._next(), deadline - time.monotonic())
            except TimeoutError:
                self.body_is_left = True
                message = f"No more of the request came within {self._patience:g} s"
                raise QueryError(SOCKET_TIMEOUT, message, "SOCKET_TIMEOUT") from None
            if piece:
                return piece
        return None

    def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        """Send status and headers."""
        self.started = True
        encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
        self._push({"type": "http.response.start", "status": status, "headers": encoded})

    def send(self, data: bytes, *, more: bool) -> None:
        """Send a piece of the response's body; waits while the client does not read.

        Raises:
            DisconnectedError: the client is gone, or does not read.
        """
        for start in range(0, len(data) or 1, _PIECE_BYTES):
            last = start + _PIECE_BYTES >= len(data)
            piece = data[start : start + _PIECE_BYTES]
            self._push({"type": "http.response.body", "body": piece, "more_body": more or not last})

    def drain(self) -> None:
        """Read the rest of the body away, within bounds; `body_is_left` says that it did not all come."""
        size, deadline = 0, time.monotonic() + self._patience
        while not self.body_is_left:
            try:
                piece = self.read()
            except QueryError:
                return
            if piece is None:
                return
            size += len(piece)
            self.body_is_left = size >= _MOST_DRAINED_BYTES or time.monotonic() > deadline

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
        try:
            self._in_loop(_awaited(self._send(message)), self._patience)
        except TimeoutError:
            self.gone.set()
            raise DisconnectedError from None

    def _in_loop(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(max(timeout, 0))
        except TimeoutError:
            future.cancel()
            raise


async def _awaited(sending: Awaitable[None]) -> None:
    await sending
