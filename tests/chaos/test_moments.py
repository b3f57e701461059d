"""When a kill counts as one with an open episode: only if a successor must remember what was announced."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.chaos.ledger import Ledger
from tests.chaos.moments import kills_with_open_episode
from tests.chaos.readings import Announcement
from tests.chaos.robot import Line, Robot


@pytest.mark.parametrize(
    ("at", "announced", "partition", "count"),
    [
        (60, 50, 0, 1),
        (45, 50, 0, 0),  # not announced yet
        (60, 50, 1, 0),  # of another partition: no offset is held back
        (500, 50, 0, 0),  # the older one was sent whole
        (15, 12, 0, 0),  # the older one had not begun
    ],
)
def test_an_older_episode_is_open_while_a_newer_one_is_announced(
    at: int, announced: int, partition: int, count: int
) -> None:
    robot = Robot(random.Random(1), Line(random.Random(2), "robot", 0))
    older, newer = robot.episode(5), robot.episode(5)
    ledger, planned = Ledger(), Counter({older[0].episode_id: len(older), newer[0].episode_id: len(newer)})
    for offset, (event, time) in enumerate(
        [(event, 20 + n * 50) for n, event in enumerate(older)]
        + [(event, 30 + n) for n, event in enumerate(newer)]
    ):
        number = partition if event in newer else 0
        ledger.acknowledged(event, b"", (event.topic, number, offset), time)
    stream = [Announcement(0, 0, {"episode_id": newer[0].episode_id}, announced)]
    assert kills_with_open_episode([at], ledger, planned, stream) == count
    stream.append(Announcement(0, 1, {"episode_id": older[0].episode_id}, 55))
    assert kills_with_open_episode([at], ledger, planned, stream) == 0, "the older one was closed before"
