from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.policies import rollout
from infra.policies.keys import SigningKey
from producers.policy_feed import Heard
from producers.policy_fit import RobotKind
from producers.policy_inbox import PolicyInbox
from producers.policy_store import PolicyStore
from schemas.events import PolicyRollout, PolicyVersion
from tests.producers.fakes import (
    BELIEVING,
    FEATURES,
    LEARNER,
    ScriptedFeed,
    announcement,
    as_sent,
    at_least,
    rolled_out,
    sent,
)

# Bound of each wait; reached only by a failing test.
PATIENCE = 30.0


@pytest.fixture
def feed() -> ScriptedFeed:
    return ScriptedFeed()


def follow(feed: ScriptedFeed, tmp_path: Path, **changes: Any) -> PolicyInbox:
    given: dict[str, Any] = {"robot_id": "arm-1", "settings": BELIEVING}
    return PolicyInbox("line", feed, PolicyStore(tmp_path, keep=2), **{**given, **changes})


@pytest.fixture
def inbox(feed: ScriptedFeed, tmp_path: Path) -> Iterator[PolicyInbox]:
    with follow(feed, tmp_path) as inbox:
        yield inbox


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def is_current(inbox: PolicyInbox, version: int) -> None:
    assert inbox.wait_for(lambda found: found.version == version, PATIENCE) is not None


def is_refused(inbox: PolicyInbox, why: str) -> None:
    until(lambda: any(why in error for error in inbox.errors()))


def state(*transitions: rollout.Transition) -> PolicyRollout:
    return rolled_out(*transitions)


def test_the_newest_of_a_backlog_is_downloaded_and_no_other(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    backlog = [announcement(version, b"w%d" % version) for version in (1, 2, 3)]
    feed.artifacts = {announced.artifact_uri: b"w%d" % announced.version for announced in backlog}
    feed.push(*backlog)
    file = inbox.wait_for(at_least(3), PATIENCE)
    assert file is not None
    assert (file.version, file.read()) == (3, b"w3")
    assert inbox.current() == file
    assert feed.downloads == [3]


def polled(feed: ScriptedFeed) -> None:
    """What was pushed is heard, and was acted on."""
    now = feed.polls
    until(lambda: feed.polls >= now + 2)


def test_of_a_history_that_comes_in_pieces_only_the_newest_is_downloaded(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    feed.everything_heard = False
    for version in (1, 2):
        feed.publish(version, b"w%d" % version)
        polled(feed)
    assert inbox.current() is None
    assert inbox.errors() == ()
    feed.everything_heard = True
    is_current(inbox, 2)
    assert feed.downloads == [2]


def test_nothing_stands_in_for_a_version_that_is_still_to_be_heard_of(feed: ScriptedFeed, tmp_path: Path) -> None:
    with follow(feed, tmp_path) as inbox:
        feed.publish(1, b"w1")
        is_current(inbox, 1)
        feed.publish(2, b"w2")
        is_current(inbox, 2)
    again = ScriptedFeed()
    again.everything_heard, again.artifacts = False, feed.artifacts
    with follow(again, tmp_path) as inbox:
        is_current(inbox, 2)
        again.push(state(rollout.hold("line", 1), rollout.hold("line", 3)))
        polled(again)
        assert inbox.current() == inbox.wait_for(at_least(2), 0.0), "version 1, which is here, is not taken"
        again.publish(3, b"w3")
        polled(again)
        assert again.downloads == []
        again.everything_heard = True
        is_current(inbox, 3)


def test_what_is_of_another_line_is_refused_under_ours(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    slip = state(rollout.hold("line/5", 5))
    feed.push(slip)
    is_refused(inbox, "line/5 rollout 1: sent under the key 'line/5'")
    for version in (1, 2):
        feed.publish(version, b"w%d" % version)
    is_current(inbox, 2)
    feed.push(state(rollout.hold("line", 1)))
    is_current(inbox, 1)


def test_other_lines_are_passed_over(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    feed.publish(9, b"x", policy="other")
    feed.publish(1, b"y")
    file = inbox.wait_for(at_least(1), PATIENCE)
    assert file is not None
    assert (file.policy, file.version) == ("line", 1)
    assert inbox.errors() == ()


def test_waiting_for_what_does_not_come_ends_with_nothing(inbox: PolicyInbox) -> None:
    assert inbox.current() is None
    assert inbox.wait_for(at_least(1), 0.05) is None


def test_when_the_newest_is_altered_the_one_before_is_taken_and_the_refusal_told(
    inbox: PolicyInbox, feed: ScriptedFeed, tmp_path: Path
) -> None:
    good, bad = announcement(1, b"good"), announcement(2, b"announced")
    feed.artifacts = {good.artifact_uri: b"good", bad.artifact_uri: b"different"}
    feed.push(good, bad)
    is_current(inbox, 1)
    (reported,) = inbox.errors()
    assert reported.startswith("line v2: sha256 is")
    feed.publish(3, b"also good")
    is_current(inbox, 3)
    assert sorted(path.name.split("-")[1] for path in tmp_path.glob("*.safetensors")) == ["v00000001", "v00000003"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (as_sent(announcement(2, b"two")), "v2: it is not signed"),
        (sent(announcement(2, b"two"), by=SigningKey.generate()), "v2: it is signed by key"),
        (
            as_sent(LEARNER.sign(announcement(2, b"two")).model_copy(update={"learner_step": 9})),
            "does not match its content",
        ),
        (sent(announcement(1, b"one"), key="line/2"), "sent under the key 'line/2', and is 'line/1'"),
        (
            sent(announcement(2, b"two", policy="other"), key="line/2"),
            "sent under the key 'line/2', and is 'other/2'",
        ),
        (Heard("line/2", 7, None, "too short for a schema id"), "record line/2 at 7: too short"),
    ],
    ids=["unsigned", "wrongly signed", "altered", "replayed as another", "another policy's", "undecodable"],
)
def test_what_cannot_be_believed_is_refused_with_its_reason_and_the_good_one_stays(
    bad: Any, why: str, inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    feed.artifacts[announcement(2, b"two").artifact_uri] = b"two"
    feed.publish(1, b"one")
    is_current(inbox, 1)
    feed.push(bad)
    is_refused(inbox, why)
    assert feed.downloads == [1]
    feed.publish(3, b"three")
    is_current(inbox, 3)


def test_an_old_version_that_is_announced_again_changes_nothing_and_is_told(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    first = feed.publish(1, b"one")
    feed.publish(2, b"two")
    is_current(inbox, 2)
    feed.push(first)
    is_refused(inbox, "line v1: announced again")
    is_current(inbox, 2)


def test_an_outage_of_the_object_store_is_waited_out(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    feed.failures = 2
    feed.publish(1, b"weights")
    is_current(inbox, 1)


def test_a_rollout_decides_and_later_versions_are_candidates(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    for version in (1, 2):
        feed.publish(version, b"w%d" % version)
    is_current(inbox, 2)
    back = state(rollout.rollback("line", 1))
    feed.push(back)
    is_current(inbox, 1)
    feed.publish(3, b"w3")
    pinned = rollout.pin("line", "arm-1", 3)(back, rollout.Change("ada", "", back.written_at))
    feed.push(pinned)
    is_current(inbox, 3)


def test_a_canary_is_for_those_that_it_names(feed: ScriptedFeed, tmp_path: Path) -> None:
    trying = state(rollout.hold("line", 1), rollout.start_canary("line", 2, robots=["arm-2"]))
    other = ScriptedFeed()
    with (
        follow(feed, tmp_path / "1") as first,
        follow(other, tmp_path / "2", robot_id="arm-2") as second,
    ):
        for each in (feed, other):
            each.push(trying)
            each.publish(1, b"one")
            each.publish(2, b"two")
        is_current(second, 2)
        is_current(first, 1)
    assert 2 not in feed.downloads


def test_an_older_generation_is_refused_after_a_reboot_too(feed: ScriptedFeed, tmp_path: Path) -> None:
    older = state(rollout.hold("line", 2))
    newer = rollout.rollback("line", 1)(older, rollout.Change("ada", "", older.written_at))
    with follow(feed, tmp_path) as inbox:
        feed.push(older, newer)  # first: before a rollout is heard, version 1 is current for a moment anyway
        for version in (1, 2):
            feed.publish(version, b"w%d" % version)
        is_current(inbox, 1)
    again = ScriptedFeed()
    with follow(again, tmp_path) as inbox:
        again.push(older)
        is_refused(inbox, "line rollout 1 is older than generation 2")
        is_current(inbox, 1)
        again.push(newer)
        until(lambda: inbox.errors() == ())
        again.push(older)
        is_refused(inbox, "is older than generation 2")
        is_current(inbox, 1)


def test_an_unsigned_rollout_is_refused_and_a_robot_that_knows_no_other_does_not_follow_the_newest(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    feed.push(as_sent(state(rollout.hold("line", 1))))
    feed.publish(2, b"two")
    is_refused(inbox, "rollout 1: it is not signed")
    assert inbox.wait_for(at_least(1), 0.3) is None
    feed.push(state(rollout.hold("line", 2)))
    is_current(inbox, 2)


def test_a_version_that_should_run_and_was_never_announced_is_told(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    feed.publish(1, b"one")
    feed.push(state(rollout.hold("line", 7)))
    is_refused(inbox, "line v7 should run, and is not announced")


class Away(ScriptedFeed):
    """Nobody answers."""

    def poll(self, timeout: float) -> list[Heard]:
        self.failures = 1
        self.size(announcement(1, b""))
        return []


def test_without_any_server_a_boot_starts_from_what_should_run_and_lies_on_disk(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    with follow(feed, tmp_path) as inbox:
        feed.publish(1, b"one")
        is_current(inbox, 1)
        feed.publish(2, b"two")
        is_current(inbox, 2)
        feed.push(state(rollout.rollback("line", 1)))
        is_current(inbox, 1)
    with follow(Away(), tmp_path) as inbox:
        file = inbox.current()
        assert file is not None
        assert file.read() == b"one"
        is_refused(inbox, "cannot be followed")


def test_what_lies_on_disk_is_not_downloaded_again_and_a_rotten_file_is(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    with follow(feed, tmp_path) as inbox:
        event = feed.publish(1, b"weights")
        is_current(inbox, 1)
    with follow(feed, tmp_path) as inbox:
        feed.push(event)
        until(lambda: not feed._pending)  # it runs from the disk before it hears that
        is_current(inbox, 1)
    assert feed.downloads == [1]
    assert feed.closed
    (artifact,) = tmp_path.glob("*.safetensors")
    artifact.write_bytes(b"rotten!")
    with follow(feed, tmp_path) as inbox:
        assert inbox.current() is None
        feed.push(event)
        is_current(inbox, 1)
    assert feed.downloads == [1, 1]


def test_a_key_that_is_no_longer_pinned_makes_what_it_signed_useless(feed: ScriptedFeed, tmp_path: Path) -> None:
    with follow(feed, tmp_path) as inbox:
        feed.publish(1, b"one")
        is_current(inbox, 1)
    successor = SigningKey.generate()
    rotated = BELIEVING.model_copy(update={"learner_keys": (successor.public,)})
    with follow(ScriptedFeed(), tmp_path, settings=rotated) as inbox:
        assert inbox.current() is None
        assert any("v1: it is signed by key" in error for error in inbox.errors())


def test_a_policy_for_another_robot_is_refused(feed: ScriptedFeed, tmp_path: Path) -> None:
    with follow(feed, tmp_path, kind=RobotKind(FEATURES, 10.0)) as inbox:
        feed.publish(1, b"no safetensors")
        is_refused(inbox, "line v1: it is no safetensors file")
        assert inbox.current() is None
    assert list(tmp_path.glob("*v0000*")) == []


def test_one_that_cannot_be_loaded_gives_way_to_what_ran_last_and_is_told(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    feed.publish(1, b"one")
    good = inbox.wait_for(at_least(1), PATIENCE)
    assert good is not None
    inbox.activated(good)
    feed.publish(2, b"two")
    bad = inbox.wait_for(at_least(2), PATIENCE)
    assert bad is not None
    inbox.reject(bad, "ValueError: no such layer")
    assert inbox.current() == good
    is_refused(inbox, "line v2: cannot be loaded: ValueError: no such layer")
    feed.publish(3, b"three")
    is_current(inbox, 3)


def test_unsigned_is_believed_where_a_setting_says_so(feed: ScriptedFeed, tmp_path: Path) -> None:
    trusting = BELIEVING.model_copy(update={"allow_unsigned": True})
    unsigned: PolicyVersion = announcement(1, b"one")
    feed.artifacts[unsigned.artifact_uri] = b"one"
    with follow(feed, tmp_path, settings=trusting) as inbox:
        feed.push(as_sent(unsigned))
        is_current(inbox, 1)
