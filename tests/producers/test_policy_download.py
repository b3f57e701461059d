from __future__ import annotations

import threading
from pathlib import Path

import pytest

from infra.clock import ManualClock
from infra.errors import ObjectStoreUnavailable
from producers import policy_download
from producers.errors import PolicyRefused
from producers.policy_download import Interrupted, Pace, download
from schemas.events import PolicyVersion
from tests.producers.fakes import ScriptedFeed, announcement

DATA = bytes(range(256)) * 10


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_download, "_PART_BYTES", 1000)


@pytest.fixture
def feed() -> ScriptedFeed:
    feed = ScriptedFeed()
    feed.artifacts[announcement(1, DATA).artifact_uri] = DATA
    return feed


def bring(feed: ScriptedFeed, path: Path, announced: PolicyVersion | None = None) -> None:
    download(announced or announcement(1, DATA), path, feed, Pace(None, ManualClock()), threading.Event())


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
    with pytest.raises(PolicyRefused, match=why):
        bring(feed, tmp_path / "part")
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_missing_is_refused(feed: ScriptedFeed, tmp_path: Path) -> None:
    with pytest.raises(PolicyRefused, match="there is no artifact"):
        bring(feed, tmp_path / "part", announcement(2, DATA))


def test_a_stop_is_heard_between_parts(feed: ScriptedFeed, tmp_path: Path) -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Interrupted):
        download(announcement(1, DATA), tmp_path / "part", feed, Pace(None, ManualClock()), stopped)


def test_a_cap_asks_for_pauses_that_keep_the_average() -> None:
    clock = ManualClock()
    pace = Pace(100_000.0, clock)
    waited = 0.0
    for _ in range(10):
        pause = pace.spent(50_000)
        waited += pause
        clock.advance(pause)
    assert waited == pytest.approx(5.0)
    clock.advance(60.0)
    assert pace.spent(50_000) == pytest.approx(0.5), "an idle minute saves nothing up"
    assert Pace(None, clock).spent(10**9) == 0.0
