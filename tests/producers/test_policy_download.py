from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra.clock import ManualClock
from infra.errors import ObjectStoreUnavailable
from producers import policy_download, policy_link
from producers.policy_download import Interrupted, NotNow, download
from producers.policy_link import Link
from schemas.events import PolicyVersion
from tests.producers.fakes import ScriptedFeed, announcement

DATA = bytes(range(256)) * 10


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LARGEST", "_SMALLEST", "_FIRST"):
        monkeypatch.setattr(policy_link, name, 1000)


@pytest.fixture
def feed() -> ScriptedFeed:
    feed = ScriptedFeed()
    feed.artifacts[announcement(1, DATA).artifact_uri] = DATA
    return feed


def bring(feed: ScriptedFeed, path: Path, announced: PolicyVersion | None = None, **changes: Any) -> None:
    given: dict[str, Any] = {"link": Link(None, ManualClock()), "between": lambda _: None, "keep_free": 0}
    download(announced or announcement(1, DATA), path, feed, **{**given, **changes})


def test_a_connection_that_breaks_costs_only_what_had_not_come(feed: ScriptedFeed, tmp_path: Path) -> None:
    feed.breaks_after = 2000
    with pytest.raises(ObjectStoreUnavailable):
        bring(feed, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA[:2000]
    feed.breaks_after = None
    feed.reads.clear()
    bring(feed, tmp_path / "part")
    assert feed.reads == [(2000, 560)]
    assert (tmp_path / "part").read_bytes() == DATA


class Narrow(ScriptedFeed):
    """A link that brings no more than 300 bytes before a request's time is over."""

    def read(self, announcement: PolicyVersion, start: int, length: int) -> memoryview:
        if length > 300:
            raise ObjectStoreUnavailable("request or response body error")
        return super().read(announcement, start, length)


def test_a_link_too_slow_for_a_part_is_asked_for_smaller_ones_until_all_of_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_link, "_SMALLEST", 100)
    feed, link = Narrow(), Link(None, ManualClock())
    feed.artifacts[announcement(1, DATA).artifact_uri] = DATA
    for _ in range(50):
        try:
            bring(feed, tmp_path / "part", link=link)
        except ObjectStoreUnavailable:
            continue
        break
    assert (tmp_path / "part").read_bytes() == DATA


@pytest.mark.parametrize("left", [b"?" * 700, DATA + b"more", DATA[:-1] + b"?"])
def test_what_an_earlier_download_left_wrong_is_fetched_again(
    left: bytes, feed: ScriptedFeed, tmp_path: Path
) -> None:
    (tmp_path / "part").write_bytes(left)
    bring(feed, tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == DATA


@pytest.mark.parametrize(
    ("there", "why"), [(DATA[:-1] + b"?", "sha256"), (DATA[:99], "99 bytes"), (DATA + b"!", "2561 bytes")]
)
def test_what_is_not_as_announced_is_refused_and_leaves_nothing(
    there: bytes, why: str, feed: ScriptedFeed, tmp_path: Path
) -> None:
    feed.artifacts[announcement(1, DATA).artifact_uri] = there
    with pytest.raises(NotNow, match=why) as refused:
        bring(feed, tmp_path / "part")
    assert refused.value.dear is (why == "sha256")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_missing_is_refused(feed: ScriptedFeed, tmp_path: Path) -> None:
    with pytest.raises(NotNow, match="there is no artifact"):
        bring(feed, tmp_path / "part", announcement(2, DATA))


def test_before_each_part_and_after_the_last_somebody_may_end_it_and_what_has_come_stays(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    for before_the_end in range(4):
        calls: list[float] = []

        def between(seconds: float, most: int = before_the_end, calls: list[float] = calls) -> None:
            calls.append(seconds)
            if len(calls) > most:
                raise Interrupted

        path = tmp_path / str(before_the_end)
        with pytest.raises(Interrupted):
            bring(feed, path, between=between)
        assert path.read_bytes() == DATA[: 1000 * before_the_end]


def test_a_cap_is_kept_by_waiting_before_parts(feed: ScriptedFeed, tmp_path: Path) -> None:
    clock, waits = ManualClock(), list[float]()

    def between(seconds: float) -> None:
        waits.append(seconds)
        clock.advance(seconds)

    bring(feed, tmp_path / "part", link=Link(500.0, clock), between=between)
    assert waits == [0.0, 2.0, 2.0, 0.0], "a part of 1000 bytes every two seconds; nothing waits behind the last"


def test_a_disk_without_room_keeps_what_has_come_and_the_text_names_the_setting(
    feed: ScriptedFeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [3000, 2000, 999]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free.pop(0) if free else 10_000))
    with pytest.raises(NotNow, match="SOP_POLICIES__MIN_FREE_BYTES") as refused:
        bring(feed, tmp_path / "part", keep_free=440)
    assert not refused.value.dear
    assert (tmp_path / "part").read_bytes() == DATA[:2000]
    bring(feed, tmp_path / "part", keep_free=440)
    assert (tmp_path / "part").read_bytes() == DATA


def test_nothing_is_written_before_the_disk_has_what_was_written_last(
    feed: ScriptedFeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sync at the end would make the spool's writes wait behind all of it."""
    synced: list[int] = []
    monkeypatch.setattr(policy_download, "_PIECE", 400)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    bring(feed, tmp_path / "part")
    assert synced == [400, 800, 1000, 1400, 1800, 2000, 2400, 2560]
