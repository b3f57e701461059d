from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from producers.policy_inbox import PolicyInbox
from producers.policy_store import PolicyStore
from tests.producers.fakes import ScriptedFeed, announcement, at_least

# Bound of each wait; reached only by a failing test.
PATIENCE = 30.0


@pytest.fixture
def feed() -> ScriptedFeed:
    return ScriptedFeed()


@pytest.fixture
def inbox(feed: ScriptedFeed, tmp_path: Path) -> Iterator[PolicyInbox]:
    with PolicyInbox("line", feed, PolicyStore(tmp_path)) as inbox:
        yield inbox


def test_the_newest_of_a_backlog_is_downloaded_and_no_other(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    backlog = [announcement(version, b"w%d" % version) for version in (1, 2, 3)]
    feed.artifacts = {announced.artifact_uri: b"w%d" % announced.version for announced in backlog}
    feed.push(*backlog)
    file = inbox.wait_for(at_least(3), PATIENCE)
    assert file is not None
    assert (file.version, file.read()) == (3, b"w3")
    assert inbox.newest() == file
    assert feed.downloads == [3]


def test_other_lines_are_passed_over(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    feed.publish(9, b"x", policy="other")
    feed.publish(1, b"y")
    file = inbox.wait_for(at_least(1), PATIENCE)
    assert file is not None
    assert (file.policy, file.version) == ("line", 1)


def test_waiting_for_what_does_not_come_ends_with_nothing(inbox: PolicyInbox) -> None:
    assert inbox.newest() is None
    assert inbox.wait_for(at_least(1), 0.05) is None


def test_an_altered_artifact_leaves_no_file_and_a_later_good_one_is_taken(
    inbox: PolicyInbox, feed: ScriptedFeed, tmp_path: Path
) -> None:
    feed.publish(1, b"good")
    assert inbox.wait_for(at_least(1), PATIENCE) is not None
    bad = announcement(2, b"announced")
    feed.artifacts[bad.artifact_uri] = b"different"
    feed.push(bad)
    feed.publish(3, b"also good")
    assert inbox.wait_for(at_least(3), PATIENCE) is not None
    assert sorted(path.name.split("-")[1] for path in tmp_path.iterdir()) == ["v00000001", "v00000003"]


def test_when_the_newest_is_refused_the_one_before_is_taken_and_the_refusal_told(
    inbox: PolicyInbox, feed: ScriptedFeed
) -> None:
    good, bad = announcement(1, b"good"), announcement(2, b"announced")
    feed.artifacts = {good.artifact_uri: b"good", bad.artifact_uri: b"different"}
    feed.push(good, bad)
    file = inbox.wait_for(at_least(1), PATIENCE)
    assert file is not None
    assert file.version == 1
    (reported,) = inbox.errors()
    assert reported.startswith("line v2: sha256 is")


def test_an_outage_of_the_object_store_is_waited_out(inbox: PolicyInbox, feed: ScriptedFeed) -> None:
    feed.failures = 2
    feed.publish(1, b"weights")
    assert inbox.wait_for(at_least(1), PATIENCE) is not None


def test_a_robot_that_has_the_artifact_does_not_download_it_again(feed: ScriptedFeed, tmp_path: Path) -> None:
    PolicyStore(tmp_path).add(announcement(1, b"weights"), b"weights")
    with PolicyInbox("line", feed, PolicyStore(tmp_path)) as inbox:
        feed.publish(1, b"weights")
        assert inbox.wait_for(at_least(1), PATIENCE) is not None
    assert feed.downloads == []
    assert feed.closed
