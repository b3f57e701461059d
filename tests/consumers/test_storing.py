"""What is stored already decides what a sealed episode becomes."""

from __future__ import annotations

from consumers.assembly import Assembly, Sealed
from consumers.dead_letters import Reason
from consumers.emitted import EmittedLog
from consumers.payload import build_payload
from infra.clock import ManualClock
from schemas.events import RobotEvent
from schemas.topics import ROBOT_TOPICS
from tests.consumers.member import Shelf, store
from tests.consumers.robots import STATE, Log, Robot, decoded, vector

BEHIND = dict.fromkeys(ROBOT_TOPICS, 1_000)
"""Committed offsets past everything that these tests append."""
AHEAD = dict.fromkeys(ROBOT_TOPICS, 0)


def seal(events: list[RobotEvent]) -> Sealed:
    log, assembly = Log(), Assembly(EmittedLog(), 10.0)
    out = assembly.add(decoded([log.append(event) for event in events])).sealed
    [only] = out or assembly.advance(10**12).sealed
    return only


def test_a_whole_episode_that_comes_again_hours_later_adds_nothing() -> None:
    shelf, events = Shelf(), Robot().episode(4)
    payload = build_payload(seal(events).episode, seal(events).closed_by, 1)
    shelf.put(payload.key, payload.data)
    result = store(seal(events), EmittedLog(), BEHIND, shelf, ManualClock())  # type: ignore[arg-type]
    assert (result.announcement, result.dead) == (None, [])


def test_an_orphan_of_the_same_reading_is_announced_as_if_it_were_not_there() -> None:
    shelf, events = Shelf(), Robot().episode(4)
    payload = build_payload(seal(events).episode, seal(events).closed_by, 1)
    shelf.put(payload.key, payload.data)
    result = store(seal(events), EmittedLog(), AHEAD, shelf, ManualClock())  # type: ignore[arg-type]
    assert result.announcement is not None
    assert result.announcement.revision == 1
    assert list(shelf.objects) == [payload.key]


def test_a_damaged_object_does_not_stop_the_partition() -> None:
    shelf, events = Shelf(), Robot().episode(4)
    shelf.objects[f"episodes/{events[0].episode_id}/1-{'0' * 64}.parquet"] = b"damaged"
    result = store(seal(events), EmittedLog(), BEHIND, shelf, ManualClock())  # type: ignore[arg-type]
    assert result.announcement is not None


def test_of_two_settled_objects_of_one_revision_the_one_with_more_events_is_the_announced_one() -> None:
    shelf, events = Shelf(), Robot().episode(8)
    for seen in (events[:4], events[:7]):  # the first one's member was killed before it could announce it
        part = seal(seen)
        payload = build_payload(part.episode, part.closed_by, 1)
        shelf.put(payload.key, payload.data)
    result = store(seal(events[6:]), EmittedLog(), BEHIND, shelf, ManualClock())  # type: ignore[arg-type]
    assert result.announcement is not None
    assert [(r.first, r.last) for r in result.announcement.sequences] == [(0, 9)]
    assert result.announcement.revision == 2


def test_events_whose_start_never_came_are_dead_letters_each() -> None:
    events = Robot().episode(3, intervene_at=1)[1:]
    result = store(seal(events), EmittedLog(), BEHIND, Shelf(), ManualClock())  # type: ignore[arg-type]
    assert result.announcement is None
    assert [letter.reason for letter in result.dead] == [Reason.NEVER_STARTED] * len(events)


def test_late_steps_are_measured_against_the_stored_start() -> None:
    shelf, events = Shelf(), Robot().episode(6)
    early = seal(events[:4])
    payload = build_payload(early.episode, early.closed_by, 1)
    shelf.put(payload.key, payload.data)
    late = events[4:]
    late[0] = late[0].model_copy(update={"state": vector(STATE + 2, 0.0)})
    log = Log()
    for _ in range(10):  # late events lie further on
        log.append(Robot("other").step(events[0].episode_id, 0))
    assembly = Assembly(EmittedLog(), 10.0)
    assembly.add(decoded([log.append(event) for event in late]))
    [again] = assembly.advance(10**12).sealed
    result = store(again, EmittedLog(), {**BEHIND, "robot-steps": 8}, shelf, ManualClock())  # type: ignore[arg-type]
    assert [letter.reason for letter in result.dead] == [Reason.WRONG_LENGTH]
    assert result.announcement is not None
    assert result.announcement.revision == 2
    assert [(r.first, r.last) for r in result.announcement.rejected] == [(4, 4)]
    assert result.announcement.missing_count == 0
