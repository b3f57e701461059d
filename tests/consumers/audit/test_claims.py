"""Records say whose they are, read as a block or one by one; those that do not are told apart."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
from hypothesis import given, settings

from consumers.audit.claims import claims_of
from schemas.events import RobotEvent, Step
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.consumers.robots import TOPIC_OF, Robot, frame, schema_of

Identity = tuple[str, str, int, int, int]
BROKEN: dict[str, Callable[[bytes], bytes | None]] = {
    "cut": lambda value: value[:-1],
    "grown": lambda value: value + b"\0",
    "empty": lambda _value: b"",
    "none": lambda _value: None,
    "magic": lambda value: b"\1" + value[1:],
}


def said(topic: str, records: list[tuple[int, bytes | None]]) -> tuple[list[Identity], list[int]]:
    found = claims_of((topic, 3), records, schema_of)
    identities = [
        (*claim.owner, int(sequence), int(offset))
        for claim in found.claims
        for sequence, offset in zip(claim.sequences, claim.offsets, strict=True)
    ]
    assert all(claim.place == (topic, 3) for claim in found.claims)
    return sorted(identities), found.nameless


def events_of(topic: str) -> list[RobotEvent]:
    robots = [Robot("one"), Robot("two", boot_epoch=7)]
    events = [event for robot in robots for _ in range(2) for event in robot.episode(4, intervene_at=1)]
    return [event for event in events if TOPIC_OF[type(event)] == topic]


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from([ROBOT_STEPS, ROBOT_EPISODES]),
    st.dictionaries(st.integers(0, 15), st.sampled_from(sorted(BROKEN))),
)
def test_every_good_record_is_claimed_once_and_every_bad_one_is_nameless(
    topic: str, faults: dict[int, str]
) -> None:
    events = events_of(topic)
    records: list[tuple[int, bytes | None]] = []
    expected = []
    for at, event in enumerate(events):
        value: bytes | None = frame(event)
        if at in faults:
            value = BROKEN[faults[at]](frame(event))
        else:
            expected.append((event.episode_id, event.robot_id, event.boot_epoch, event.sequence, 10 * at))
        records.append((10 * at, value))
    bad = [10 * at for at in sorted(faults) if at < len(events)]
    assert said(topic, records) == (sorted(expected), bad)


def test_a_batch_of_good_steps_is_read_as_a_block_and_says_the_same_as_one_by_one() -> None:
    steps = [event for event in events_of(ROBOT_STEPS) if isinstance(event, Step)]
    records: list[tuple[int, bytes | None]] = [(at, frame(step)) for at, step in enumerate(steps)]
    together = said(ROBOT_STEPS, records)
    singly = [said(ROBOT_STEPS, [record])[0][0] for record in records]
    assert together == (sorted(singly), [])
    assert said(ROBOT_STEPS, []) == ([], [])
