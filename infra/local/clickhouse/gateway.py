"""The ASGI application: HTTP in, one thread per running query."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from infra.local.clickhouse.engine import too_many
from infra.local.clickhouse.errors import QueryError
from infra.local.clickhouse.exchange import Exchange, Message, Receive, Send
from infra.local.clickhouse.execution import Execution, Service
from infra.local.clickhouse.request import Request

# More queries than handles (engine.py): the others wait for one, or for their bodies. Readers have threads of
# their own, so that theirs alone wait when they take all.
_THREADS = {True: 16, False: 32}
# Requests that wait for a thread, per kind of user.
_WAITING = 256


class Gateway:
    """ClickHouse's HTTP interface as an ASGI application."""

    def __init__(self, service: Service, *, patience: float = 60.0) -> None:
        """Wait at most `patience` seconds for a client to send, or to take, more."""
        self._service, self._patience = service, patience
        self._threads = {
            reader: ThreadPoolExecutor(number, thread_name_prefix="reader" if reader else "query")
            for reader, number in _THREADS.items()
        }
        self._under_way = dict.fromkeys(_THREADS, 0)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        request = Request(scope["method"], scope["query_string"], scope["headers"])
        if scope["path"] not in ("/", "/ping", "/replicas_status"):
            await _answer(send, 404, f"There is no handle {scope['path']}: queries go to /\n".encode())
            return
        is_check = scope["path"] in ("/ping", "/replicas_status")
        if is_check or (request.method == "GET" and scope["path"] == "/" and not request.query):
            await _answer(send, 200, b"Ok.\n")
            return
        reader = self._is_reader(request)
        if self._under_way[reader] >= _THREADS[reader] + _WAITING:
            await _answer(send, 503, str(too_many()).encode() + b"\n", code=too_many().code)
            return
        exchange = Exchange(receive, send, self._patience)
        execution = Execution(self._service, request, exchange)
        watch = asyncio.create_task(exchange.watch())
        self._under_way[reader] += 1
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads[reader], execution.run)
        finally:
            self._under_way[reader] -= 1
            watch.cancel()

    def _is_reader(self, request: Request) -> bool:
        """Whose threads it gets; who is not known is no better than a reader."""
        try:
            return request.user(self._service.users).reader
        except QueryError:
            return True


async def _answer(send: Send, status: int, body: bytes, *, code: int = 0) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if code:
        headers += [(b"x-clickhouse-exception-code", str(code).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
