"""Offsets that do not follow one another: seen in steps and in all else, and judged by what the topic holds."""

from __future__ import annotations

from typing import Any, cast

import pytest

from consumers.gaps import Gap, gaps, skipped
from consumers.intake import Intake
from consumers.records import Origin
from infra.kafka import Partition
from schemas.topics import EPISODE_LABELS, EPISODE_TOPICS, ROBOT_EPISODES, ROBOT_STEPS
from tests.consumers.robots import Consumed


def consumed(topic: str, number: int, *offsets: int) -> list[Consumed]:
    return [Consumed(Origin(topic, number, offset, 0, b"robot", b"")) for offset in offsets]


def intake(*batches: list[Consumed]) -> Intake:
    found = Intake()
    for records in batches:
        found.add(records)
    return found


def at(**nexts: int) -> dict[str, int]:
    return dict.fromkeys(EPISODE_TOPICS, 0) | {name.replace("_", "-"): value for name, value in nexts.items()}


def test_what_follows_what_was_read_has_no_gap() -> None:
    taken = intake(consumed(ROBOT_STEPS, 0, 5, 6, 7), consumed(ROBOT_STEPS, 0, 8), consumed(ROBOT_EPISODES, 0, 0))
    assert list(gaps(taken, {0: at(robot_steps=5)})) == []


def test_what_comes_again_is_no_gap() -> None:
    assert list(gaps(intake(consumed(ROBOT_STEPS, 0, 3, 4, 3, 4, 5)), {0: at(robot_steps=5)})) == []


def test_gaps_are_found_before_the_first_and_between_any_two_in_every_topic_by_number() -> None:
    taken = intake(
        consumed(ROBOT_STEPS, 0, 6, 7),
        [*consumed(ROBOT_STEPS, 0, 9), *consumed(ROBOT_STEPS, 1, 40), *consumed(EPISODE_LABELS, 0, 2)],
    )
    assert list(gaps(taken, {0: at(robot_steps=5)})) == [
        Gap((EPISODE_LABELS, 0), 0, 2),
        Gap((ROBOT_STEPS, 0), 5, 6),
        Gap((ROBOT_STEPS, 0), 8, 9),
    ]


@pytest.mark.parametrize(
    ("first", "offsets", "expected"),
    [
        (0, [3, 9], True),
        (0, [8, 9], True),
        (0, [9], False),
        (0, [], False),
        (4, [9], True),
    ],
    ids=["records", "one record", "markers alone", "nothing yet", "taken by retention"],
)
def test_the_topic_says_whether_records_were_skipped(first: int, offsets: list[int], *, expected: bool) -> None:
    class Topic:
        def bounds(self, _partition: Partition) -> tuple[int, int]:
            return first, 10

        def read_to_end(self, starts: dict[Partition, int], _silence: float, batch: int) -> list[Consumed]:
            assert starts == {(ROBOT_STEPS, 0): 3}
            return consumed(ROBOT_STEPS, 0, *offsets)

    assert skipped(Gap((ROBOT_STEPS, 0), 3, 9), cast("Any", Topic())) is expected
