"""The ASGI application: HTTP in, one thread per running query."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from infra.local.clickhouse.exchange import Exchange, Message, Receive, Send
from infra.local.clickhouse.execution import Execution, Service
from infra.local.clickhouse.request import Request

# More queries than handles (engine.py): the others wait for one, or for their bodies.
_THREADS = 32


class Gateway:
    """ClickHouse's HTTP interface as an ASGI application."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="query")

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
        exchange = Exchange(receive, send)
        execution = Execution(self._service, request, exchange)
        watch = asyncio.create_task(exchange.watch())
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, execution.run)
        finally:
            watch.cancel()


async def _answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
