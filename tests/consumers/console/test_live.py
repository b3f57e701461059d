"""The live stream: one look for all readers, and an end for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

from consumers.console import live
from consumers.console.asking import Trouble
from consumers.console.live import Feed


class Reader:
    """A connection of its own to a feed."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self.gone = False
        self._events: AsyncIterator[str] | None = None

    async def _receive(self) -> dict[str, str]:
        if self.gone:
            return {"type": "http.disconnect"}
        await asyncio.sleep(3600)
        raise AssertionError

    async def next(self) -> str:
        if self._events is None:
            request = Request({"type": "http", "method": "GET", "headers": []}, self._receive)
            answer = await self._feed.stream(request)
            assert isinstance(answer, StreamingResponse), answer.status_code
            assert answer.media_type == "text/event-stream"
            self._events = cast("AsyncIterator[str]", aiter(answer.body_iterator))
        return await asyncio.wait_for(anext(self._events), 20)

    async def close(self) -> None:
        if self._events is not None:
            await self._events.aclose()  # type: ignore[attr-defined]


def test_all_readers_share_one_look_and_hear_only_of_changes() -> None:
    looks = 0

    def look() -> str:
        nonlocal looks
        looks += 1
        return f"<p>\n{looks // 10}</p>"

    async def scenario() -> None:
        feed = Feed(look, interval=0.005)
        readers = [Reader(feed) for _ in range(10)]
        for reader in readers:
            assert await reader.next() == "retry: 2000\n\n"
        for number in range(3):
            events = set(await asyncio.gather(*(reader.next() for reader in readers)))
            assert all(event.startswith("event: fleet\ndata: {") and event.endswith("}\n\n") for event in events)
            assert all(event.count("\n") == 3 for event in events), number
        for reader in readers:
            await reader.close()
        seen = looks
        await asyncio.sleep(0.05)
        assert looks <= seen + 1  # nobody reads: nobody looks
        await feed.stop()

    asyncio.run(scenario())
    assert looks < 150  # about 30; of ten readers who look themselves ten times as many


def test_trouble_is_told_and_ends_by_itself_when_it_is_over() -> None:
    answers: list[Exception | str] = [Trouble("no answer", "wait"), ValueError("odd"), "<p>here</p>"]

    def look() -> str:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scenario() -> list[str]:
        feed = Feed(look, interval=0.5)
        reader = Reader(feed)
        events = [await reader.next()]
        while "event: fleet" not in events[-1]:
            events.append(await reader.next())
        await reader.close()
        await feed.stop()
        return events

    events = asyncio.run(scenario())
    assert "no answer" in events[1]
    assert "The log says why" in events[2]


def test_stopping_ends_every_stream_and_refuses_new_ones() -> None:
    async def scenario() -> None:
        feed = Feed(lambda: "<p>same</p>", interval=0.01)
        reader = Reader(feed)
        await reader.next()
        await reader.next()
        waiting = asyncio.ensure_future(reader.next())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        feed.close()
        with pytest.raises(StopAsyncIteration):
            await waiting
        assert (await feed.stream(Request({"type": "http", "headers": []}))).status_code == 503
        await feed.stop()

    asyncio.run(scenario())


def test_there_are_only_so_many_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_READERS", 2)

    async def scenario() -> None:
        feed = Feed(lambda: "<p></p>", interval=0.01)
        readers = [Reader(feed), Reader(feed)]
        for reader in readers:
            await reader.next()
        refused = await feed.stream(Request({"type": "http", "headers": []}))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        await readers[0].close()
        assert await Reader(feed).next() == "retry: 2000\n\n"
        await feed.stop()

    asyncio.run(scenario())


def test_who_reads_after_a_pause_sees_what_is_now_and_not_what_was() -> None:
    state = ["before"]

    async def first_event(feed: Feed) -> str:
        reader = Reader(feed)
        assert await reader.next() == "retry: 2000\n\n"
        event = await reader.next()
        await reader.close()
        return event

    async def scenario() -> None:
        feed = Feed(lambda: state[0], interval=0.01)
        assert "before" in await first_event(feed)
        state[0] = "now"
        for _ in range(2):  # what has not changed is told to who is new, too
            assert "now" in await first_event(feed)
        await feed.stop()

    asyncio.run(scenario())
