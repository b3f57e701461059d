"""What is refused is told once for each cause, and what every boot hears again is no refusal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from infra.policies import rollout
from infra.policies.keys import SigningKey
from producers.policy_feed import Heard
from producers.policy_inbox import PolicyInbox
from tests.producers.fakes import BELIEVING, LEARNER, ScriptedFeed, announcement, sent
from tests.producers.test_policy_inbox import follow, is_current, is_refused, state, until


@pytest.fixture
def feed() -> ScriptedFeed:
    return ScriptedFeed()


@pytest.fixture
def inbox(feed: ScriptedFeed, tmp_path: Path) -> Iterator[PolicyInbox]:
    with follow(feed, tmp_path) as inbox:
        yield inbox


def test_a_boot_that_hears_how_its_rollout_came_about_logs_no_error_and_a_replay_is_one(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    held = state(rollout.hold("line", 1))
    history = [held]
    for transition in (rollout.promote("line", 2), rollout.rollback("line", 1)):
        history.append(transition(history[-1], rollout.Change("ada", "", held.written_at)))
    rotated = sent(history[0], by=SigningKey.generate())  # a key that was removed from the pinned ones
    feed.push(rotated, *history[1:])
    feed.publish(1, b"one")
    with capture_logs() as logs, follow(feed, tmp_path) as inbox:
        is_current(inbox, 1)
        assert inbox.errors() == ()
    assert [log for log in logs if log["log_level"] == "error"] == []
    again = ScriptedFeed()
    again.push(rotated, *history[1:])
    again.publish(1, b"one")
    with capture_logs() as logs, follow(again, tmp_path) as inbox:
        is_current(inbox, 1)
        until(lambda: not again._pending)
        assert inbox.errors() == ()
        again.push(history[1], history[2])  # what hides it behind a copy of the newest is seen all the same
        is_refused(inbox, "line rollout 2 is older than generation 3: replayed, and ignored")
        is_current(inbox, 1)
    refused = [log["error"] for log in logs if log["log_level"] == "error"]
    assert refused == ["line rollout 2 is older than generation 3: replayed, and ignored"]


def test_a_control_topic_that_is_read_from_its_beginning_again_says_nothing_new(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    first = state(rollout.hold("line", 1))
    second = rollout.promote("line", 2)(first, rollout.Change("ada", "", first.written_at))
    feed.publish(2, b"two")
    feed.push(first, second)
    is_current(inbox, 2)
    with capture_logs() as logs:
        feed.push(*(Heard("line", at, sent(event)) for at, event in enumerate((first, second))))
        feed.publish(3, b"three")
        until(lambda: not feed._pending)
        assert inbox.errors() == ()
        feed.push(Heard("line", 2, sent(first)))
        is_refused(inbox, "line rollout 1 is older than generation 2")
    assert len([log for log in logs if log["log_level"] == "error"]) == 1


def test_a_boot_that_hears_only_an_older_rollout_than_it_knows_refuses_it(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    older = state(rollout.hold("line", 2))
    newer = rollout.rollback("line", 1)(older, rollout.Change("ada", "", older.written_at))
    with follow(feed, tmp_path) as inbox:
        feed.push(older, newer)
        until(lambda: inbox.wanted() == 1)
    again = ScriptedFeed()
    again.push(newer, older)  # replayed while the robot was away, and the last record of its key
    with follow(again, tmp_path) as inbox:
        is_refused(inbox, "line rollout 1 is older than generation 2")
        assert inbox.wanted() == 1


def test_a_key_that_is_missing_is_said_once_for_the_newest_version_with_a_count(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    feed.everything_heard = False
    with (
        capture_logs() as logs,
        follow(feed, tmp_path, settings=BELIEVING.model_copy(update={"learner_keys": ()})),
    ):
        for version in range(1, 11):
            feed.publish(version, b"w")
        until(lambda: not feed._pending)
        for version in range(11, 21):
            feed.publish(version, b"w")
        feed.everything_heard = True
        until(lambda: any(log["log_level"] == "error" for log in logs))
    (error,) = [log["error"] for log in logs if log["log_level"] == "error"]
    assert error == (
        f"line v20: it is signed by key {LEARNER.key_id}, which SOP_POLICIES__LEARNER_KEYS lacks (has none); "
        f"likewise 19 older versions"
    )


def test_a_version_that_was_made_anew_is_no_replay_at_the_next_boot(feed: ScriptedFeed, tmp_path: Path) -> None:
    before = announcement(1, b"before")
    with follow(feed, tmp_path) as inbox:
        feed.push(before)
        anew = feed.publish(1, b"anew", published_at=before.published_at + timedelta(hours=1))
        until(lambda: (file := inbox.current()) is not None and file.read() == b"anew")
    again = ScriptedFeed()
    again.push(before, anew)
    with capture_logs() as logs, follow(again, tmp_path) as inbox:
        until(lambda: not again._pending)
        again.push(before)
        is_refused(inbox, "line v1: announced at 2 with an older content than before")
    assert len([log for log in logs if log["log_level"] == "error"]) == 1


def test_a_line_that_nobody_announced_is_told_with_those_that_are_known_until_it_comes(
    feed: ScriptedFeed, tmp_path: Path
) -> None:
    feed.everything_heard = False
    with capture_logs() as logs, follow(feed, tmp_path) as inbox:
        feed.publish(1, b"x", policy="liine")
        feed.publish(2, b"x", policy="other")
        feed.push(sent(announcement(3, b"x", policy="no\nname")))
        until(lambda: not feed._pending)
        assert inbox.errors() == (), "more may be on its way"
        feed.everything_heard = True
        until(lambda: inbox.errors() == ("no policy line 'line' on policy-versions yet; known: liine, other",))
        feed.publish(1, b"one")
        is_current(inbox, 1)
        assert inbox.errors() == ()
    assert [log["log_level"] for log in logs if log["event"] == "policy_line_unknown"] == ["warning"]


def test_where_no_line_was_ever_announced_it_is_asked_for_the_learner(inbox: PolicyInbox) -> None:
    is_refused(inbox, "no policy line 'line' on policy-versions yet; nor any other: has `sop learn` run?")


def test_a_line_whose_versions_are_all_refused_is_not_called_unknown(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    feed.push(Heard("line/1", 7, None, "too short for a schema id"))
    is_refused(inbox, "too short")
    assert not any("no policy line" in error for error in inbox.errors())
