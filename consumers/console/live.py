"""What happens now, pushed to the pages: server-sent events from one look at ClickHouse for all readers.

A stream ends by itself after a while, and when the console stops; the page connects again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from consumers.console.asking import Trouble

MOST_READERS = 64
_LONGEST_STREAM_SECONDS = 900.0
_KEEP_ALIVE_SECONDS = 15.0
_RETRY_MILLISECONDS = 2000


_log = structlog.get_logger(__name__)


class Feed:
    """The newest state, looked at while anybody reads.

    Args:
        look: makes the state as an HTML fragment; runs in a thread; raises Trouble.
        interval: seconds between two looks.
    """

    def __init__(self, look: Callable[[], str], interval: float = 1.0) -> None:
        self._look = look
        self._interval = interval
        self._changed = asyncio.Condition()
        self._event = ""
        self._number = 0
        self._readers = 0
        self._stopped = False
        self._looking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def stream(self, request: Request) -> Response:
        """The endpoint. Answers 503 when it has readers enough, or stops."""
        if self._stopped or self._readers >= MOST_READERS:
            return PlainTextResponse("too many readers, or stopping\n", 503, headers={"Retry-After": "5"})
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._events(request), media_type="text/event-stream", headers=headers)

    def close(self) -> None:
        """End all streams; from a signal's handler, or from another thread."""
        self._stopped = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._wake()))

    async def stop(self) -> None:
        """End all streams, and look no more."""
        self._stopped = True
        await self._wake()
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
            self._looking = None

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _events(self, request: Request) -> AsyncIterator[str]:
        self._readers += 1
        try:
            if self._looking is None:
                # Nobody looked since the last reader left: what was seen then is no news any more.
                self._event, self._number = "", 0
                self._looking = asyncio.create_task(self._watch())
            yield f"retry: {_RETRY_MILLISECONDS}\n\n"
            loop = self._loop = asyncio.get_running_loop()
            until, seen = loop.time() + _LONGEST_STREAM_SECONDS, 0
            while not self._stopped and loop.time() < until and not await request.is_disconnected():
                if self._number != seen:
                    seen = self._number
                    yield self._event
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(_KEEP_ALIVE_SECONDS), self._changed:
                        if self._number == seen and not self._stopped:
                            await self._changed.wait()
                        continue
                yield ": still here\n\n"
        finally:
            self._readers -= 1
            if self._readers == 0 and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _watch(self) -> None:
        while not self._stopped:
            try:
                event = _event("fleet", {"html": await run_in_threadpool(self._look)})
            except Trouble as trouble:
                event = _event("trouble", {"what": trouble.what, "advice": trouble.advice})
            except Exception:  # noqa: BLE001 - one look that fails must not end all that come after it
                _log.exception("look_failed")
                event = _event("trouble", {"what": "The fleet cannot be shown.", "advice": "The log says why."})
            if event != self._event:
                async with self._changed:
                    self._event = event
                    self._number += 1
                    self._changed.notify_all()
            await asyncio.sleep(self._interval)


def _event(name: str, data: dict[str, str]) -> str:
    """One event. JSON has no line breaks, which would end it early."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n"
