"""What comes in the middle of a download, and what cannot be had now: heard, tried again, and never in the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.clock import ManualClock
from infra.errors import KafkaUnavailable
from infra.policies import rollout
from producers import policy_link
from producers.policy_feed import Heard
from producers.policy_inbox import PolicyInbox
from producers.policy_store import PolicyStore
from schemas.events import PolicyRollout, PolicyVersion
from tests.producers.fakes import BELIEVING, ScriptedFeed, announcement, at_least, rolled_out, sent

# Bound of each wait; reached only by a failing test.
PATIENCE = 30.0
PART = 1000
LARGE = bytes(10 * PART)


class Slow(ScriptedFeed):
    """Something happens in the middle of version `of`; its parts are counted."""

    def __init__(self, of: int, happens: Callable[[Slow], None]) -> None:
        super().__init__()
        self.of = of
        self.parts = 0
        self.down = False
        self._happens = happens

    def poll(self, timeout: float) -> list[Heard]:
        if self.down:
            raise KafkaUnavailable("no broker")
        return super().poll(timeout)

    def read(self, announcement: PolicyVersion, start: int, length: int) -> memoryview:
        if announcement.version == self.of:
            self.parts += 1
            if self.parts == 2:
                self._happens(self)
        return super().read(announcement, start, length)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_LARGEST", "_SMALLEST", "_FIRST"):
        monkeypatch.setattr(policy_link, name, PART)


def follow(feed: ScriptedFeed, folder: Path, **changes: Any) -> PolicyInbox:
    given: dict[str, Any] = {"robot_id": "arm-1", "settings": BELIEVING}
    return PolicyInbox("line", feed, PolicyStore(folder, keep=3), **{**given, **changes})


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def is_current(inbox: PolicyInbox, version: int) -> None:
    assert inbox.wait_for(lambda found: found.version == version, PATIENCE) is not None, inbox.errors()


def is_refused(inbox: PolicyInbox, why: str) -> None:
    until(lambda: any(why in error for error in inbox.errors()))


def next_state(before: PolicyRollout, *transitions: rollout.Transition) -> PolicyRollout:
    for transition in transitions:
        before = transition(before, rollout.Change("ada", "", before.written_at))
    return before


def test_a_rollback_ends_the_download_of_what_is_not_wanted_any_more(tmp_path: Path) -> None:
    feed = Slow(3, lambda feed: feed.push(rolled_out(rollout.rollback("line", 1))))
    with follow(feed, tmp_path) as inbox:
        for version in (1, 2):
            feed.publish(version, b"w%d" % version)
            is_current(inbox, version)
        feed.publish(3, LARGE)
        is_current(inbox, 1)
        assert (feed.parts, inbox.wanted()) == (2, 1)
        assert inbox.wait_for(at_least(2), 0.3) is None


def test_a_rollback_that_comes_with_the_last_part_is_heard_before_that_version_is_offered(tmp_path: Path) -> None:
    offered: list[int] = []
    feed = Slow(2, lambda feed: feed.push(rolled_out(rollout.hold("line", 1))))
    with follow(feed, tmp_path) as inbox:
        feed.publish(1, b"one")
        is_current(inbox, 1)
        inbox._store.prune = lambda protected: offered.extend(e.version for e in protected)  # type: ignore[method-assign]
        feed.publish(2, bytes(2 * PART))
        until(lambda: feed.parts == 2 and inbox.wanted() == 1)
        assert inbox.wait_for(at_least(2), 0.3) is None
        assert 2 not in offered


def test_what_is_promoted_meanwhile_comes_first(tmp_path: Path) -> None:
    held = rolled_out(rollout.hold("line", 1))
    feed = Slow(1, lambda feed: feed.push(next_state(held, rollout.promote("line", 2))))
    with follow(feed, tmp_path) as inbox:
        feed.push(held)
        feed.publish(2, b"two")
        feed.publish(1, LARGE)
        is_current(inbox, 2)
        assert feed.parts == 2


@pytest.mark.parametrize("what", ["a newer version of a line that is followed", "a rollout for another robot"])
def test_what_does_not_concern_a_download_lets_it_go_on(what: str, tmp_path: Path) -> None:
    held = rolled_out(rollout.hold("line", 1))

    def happens(feed: Slow) -> None:
        if what.startswith("a newer"):
            feed.publish(2, b"two")
        else:
            feed.push(next_state(held, rollout.pin("line", "arm-9", 7)))

    feed = Slow(1, happens)
    with follow(feed, tmp_path) as inbox:
        if not what.startswith("a newer"):
            feed.push(held)
        feed.publish(1, LARGE)
        is_current(inbox, 2 if what.startswith("a newer") else 1)
        assert feed.parts == 10, "a robot that is slower than its learner would never have any"


def test_a_download_goes_on_without_kafka_and_says_so(tmp_path: Path) -> None:
    def happens(feed: Slow) -> None:
        feed.down = True

    feed = Slow(1, happens)
    with follow(feed, tmp_path) as inbox:
        feed.publish(1, LARGE)
        is_current(inbox, 1)
        is_refused(inbox, "policies cannot be followed: no broker")


def test_an_artifact_that_is_missing_is_looked_for_again_and_its_refusal_is_withdrawn(tmp_path: Path) -> None:
    feed, clock = ScriptedFeed(), ManualClock()
    with follow(feed, tmp_path, clock=clock) as inbox:
        feed.publish(1, b"one")
        is_current(inbox, 1)
        late: PolicyVersion = sent(announcement(2, b"two")).event
        feed.push(late)
        is_refused(inbox, "line v2: there is no artifact at s3://sop/policies/2; tried again in 5 s")
        feed.artifacts[late.artifact_uri] = b"two"
        clock.advance(5.0)
        is_current(inbox, 2)
        assert inbox.errors() == ()


@pytest.mark.parametrize(
    ("wrong", "why", "seconds"),
    [(b"two, not whole", "14 bytes, announced were 9", 5.0), (b"other one", "sha256 is", 600.0)],
)
def test_an_artifact_that_was_mended_in_the_bucket_is_taken(
    wrong: bytes, why: str, seconds: float, tmp_path: Path
) -> None:
    feed, clock = ScriptedFeed(), ManualClock()
    with follow(feed, tmp_path, clock=clock) as inbox:
        mended: PolicyVersion = sent(announcement(2, b"the right")).event
        feed.artifacts[mended.artifact_uri] = wrong
        feed.push(mended)
        is_refused(inbox, why)
        asked = len(feed.downloads)
        feed.publish(1, b"one")
        is_current(inbox, 1)
        feed.artifacts[mended.artifact_uri] = b"the right"
        assert feed.downloads.count(2) == asked == 1, "not asked for before its time"
        clock.advance(seconds)
        is_current(inbox, 2)


def test_a_disk_without_room_leaves_what_runs_and_says_what_to_do(tmp_path: Path) -> None:
    feed = ScriptedFeed()
    with follow(feed, tmp_path) as inbox:
        first = feed.publish(1, b"one")
        is_current(inbox, 1)
    floor = BELIEVING.model_copy(update={"min_free_bytes": 2**62})
    with follow(feed, tmp_path, settings=floor, clock=ManualClock()) as inbox:
        feed.push(first)
        feed.publish(2, b"two")
        is_refused(inbox, "lower SOP_POLICIES__MIN_FREE_BYTES; tried again in")
        file = inbox.current()
        assert file is not None
        assert (file.version, feed.downloads) == (1, [1, 2])


class Away(ScriptedFeed):
    """Nobody answers."""

    def poll(self, timeout: float) -> list[Heard]:
        raise KafkaUnavailable("no broker")


def test_with_its_rollout_unreadable_an_off_line_boot_runs_what_ran_last_and_not_the_newest(
    tmp_path: Path,
) -> None:
    feed, back = ScriptedFeed(), rolled_out(rollout.rollback("line", 1))
    with follow(feed, tmp_path) as inbox:
        for version in (1, 2):
            feed.publish(version, b"w%d" % version)
            is_current(inbox, version)
        feed.push(back)
        is_current(inbox, 1)
        file = inbox.current()
        assert file is not None
        inbox.activated(file)
    (tmp_path / "rollout.json").write_bytes(b"")
    clock = ManualClock()
    with follow(Away(), tmp_path, clock=clock) as inbox:
        file = inbox.current()
        assert file is not None
        assert (file.version, inbox.wanted()) == (1, None)
        clock.advance(3600.0)
        is_refused(inbox, "rollout.json cannot be read")
    again = ScriptedFeed()
    with follow(again, tmp_path) as inbox:
        again.publish(3, b"w3")
        assert inbox.wait_for(at_least(2), 0.3) is None
        again.push(back)
        until(lambda: inbox.wanted() == 1)
        assert inbox.errors() == ()
    with follow(Away(), tmp_path) as inbox:
        file = inbox.current()
        assert file is not None
        assert (file.version, inbox.wanted()) == (1, 1)
