from __future__ import annotations

from pathlib import Path

import pytest

from producers.errors import EpisodeOpen
from producers.policy_swap import swap
from schemas.events import PolicyActivated
from tests.producers.fakes import ScriptedFeed, at_least, robot, started

PATIENCE = 30.0


def load(data: bytes) -> str:
    if data.startswith(b"bad"):
        raise ValueError("no such layer")
    return data.decode()


def test_policies_are_swapped_between_episodes_and_one_that_does_not_load_is_told_and_passed_over(
    tmp_path: Path,
) -> None:
    feed = ScriptedFeed()
    with robot(tmp_path) as (client, box):
        inbox = client.follow("line", feed=feed)
        assert swap(client, inbox, load) is None
        feed.publish(1, b"good one")
        inbox.wait_for(at_least(1), PATIENCE)
        with started(client), pytest.raises(EpisodeOpen):
            swap(client, inbox, load)
        assert swap(client, inbox, load) == "good one"
        assert swap(client, inbox, load) is None, "it runs already"
        feed.publish(2, b"bad one")
        inbox.wait_for(at_least(2), PATIENCE)
        assert swap(client, inbox, load) is None
        assert client.active_policy is not None
        assert client.active_policy.version == 1
        assert inbox.errors() == ("line v2: cannot be loaded: ValueError: no such layer",)
        feed.publish(3, b"good three")
        inbox.wait_for(at_least(3), PATIENCE)
        assert swap(client, inbox, load) == "good three"
    activated = [event.version for event in box.events() if isinstance(event, PolicyActivated)]
    assert activated == [1, 3]


def test_a_boot_without_servers_runs_what_ran_last(tmp_path: Path) -> None:
    feed = ScriptedFeed()
    with robot(tmp_path) as (client, _):
        inbox = client.follow("line", feed=feed)
        feed.publish(1, b"one")
        inbox.wait_for(at_least(1), PATIENCE)
        swap(client, inbox, load)
    with robot(tmp_path) as (client, _):
        assert swap(client, client.follow("line", feed=ScriptedFeed()), load) == "one"
