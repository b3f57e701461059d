"""Cases of assembly that deserve a name of their own; the model of exactly once covers the rest."""

from __future__ import annotations

from collections import Counter

from consumers.assembly import Assembly, Outcome
from consumers.dead_letters import Reason
from consumers.emitted import EmittedLog
from consumers.ranges import RangeSet
from schemas.events import ClosedBy, RobotEvent
from schemas.topics import ROBOT_TOPICS
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import STATE, Log, Robot, decoded, uuid7, vector


def fold(assembly: Assembly, log: Log, events: list[RobotEvent]) -> Outcome:
    return assembly.add(decoded([log.append(event) for event in events]))


def read_all(member: Member) -> None:
    for topic in ROBOT_TOPICS:
        member.consume(topic, 1_000)


def test_a_spool_replayed_after_a_late_revision_and_a_restart_announces_nothing_twice() -> None:
    cluster = Cluster()
    member, robot = Member(cluster), Robot()
    first, second = robot.episode(4), robot.episode(4)
    for event in first[:-2]:
        cluster.log.append(event, cluster.now_ms())
    read_all(member)
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    for event in second:
        cluster.log.append(event, cluster.now_ms())
    read_all(member)
    member.commit()
    member.commit()  # with everything settled, nothing of it is read forward any more
    member = Member(cluster)
    for event in first[-2:]:
        cluster.log.append(event, cluster.now_ms())
    read_all(member)
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.commit()
    for event in second:
        cluster.log.append(event, cluster.now_ms())
    read_all(member)
    member.commit()
    announced = Counter((event.episode_id, event.revision) for event in cluster.training)
    assert announced == {(first[0].episode_id, 1): 1, (first[0].episode_id, 2): 1, (second[0].episode_id, 1): 1}


def test_events_of_another_boot_in_an_announced_episode_are_buried_and_not_taken_for_duplicates() -> None:
    assembly, log, robot = Assembly(EmittedLog(), 10.0), Log(), Robot()
    events = robot.episode(3)
    [done] = fold(assembly, log, events).sealed
    assert done.closed_by is ClosedBy.COMPLETE
    clone = Robot(boot_epoch=robot.boot_epoch + 1)
    stray: list[RobotEvent] = [clone.start(events[0].episode_id), clone.step(events[0].episode_id, 0)]
    outcome = fold(assembly, log, stray)
    assert [letter.reason for letter in outcome.dead] == [Reason.FOREIGN_EPISODE] * 2
    assert assembly.open == {}


def test_an_unusable_step_of_another_boot_does_not_fill_a_sequence_of_the_episode() -> None:
    assembly, log, robot = Assembly(EmittedLog(), 10.0), Log(), Robot()
    events = robot.episode(3)
    fold(assembly, log, events[:2])
    clone = Robot(boot_epoch=robot.boot_epoch + 1)
    clone.sequence = 2
    bad = clone.step(events[0].episode_id, 1, reward=float("nan"))
    assert [letter.reason for letter in fold(assembly, log, [bad]).dead] == [Reason.NOT_FINITE]
    [done] = fold(assembly, log, events[2:]).sealed
    assert not done.episode.rejected
    assert done.episode.seen.covers(0, 4)


def test_a_good_step_with_the_sequence_of_a_rejected_one_contradicts_it() -> None:
    assembly, log, robot = Assembly(EmittedLog(), 10.0), Log(), Robot()
    events = robot.episode(3)
    bad = events[1].model_copy(update={"reward": float("inf")})
    long = events[2].model_copy(update={"state": vector(STATE + 1, 0.0)})
    fold(assembly, log, [events[0], bad, long])
    again = fold(assembly, log, [bad, long])
    assert (again.duplicates, again.dead) == (2, [])
    other = fold(assembly, log, [events[1], events[2]])
    assert [letter.reason for letter in other.dead] == [Reason.CONFLICT] * 2


def test_an_event_whose_content_is_wrong_fills_its_sequence_so_that_the_episode_completes() -> None:
    assembly, log, robot = Assembly(EmittedLog(), 10.0), Log(), Robot()
    events = robot.episode(3, intervene_at=1)
    events[2] = events[2].model_copy(update={"intervention_id": "no uuid"})
    outcome = fold(assembly, log, events)
    [done] = outcome.sealed
    assert [letter.reason for letter in done.episode.letters(RangeSet())] == [Reason.BAD_ID]
    assert (done.closed_by, list(done.episode.rejected)) == (ClosedBy.COMPLETE, [(2, 2)])


def test_the_same_sequence_with_other_content_is_a_conflict_while_the_episode_is_open() -> None:
    assembly, log, robot = Assembly(EmittedLog(), 10.0), Log(), Robot()
    events = robot.episode(3, ends=False)
    fold(assembly, log, events)
    changed = events[2].model_copy(update={"reward": 99.0})
    outcome = fold(assembly, log, [events[1], changed])
    assert outcome.duplicates == 1
    assert [letter.reason for letter in outcome.dead] == [Reason.CONFLICT]


def test_a_later_start_closes_its_predecessor_only_once_all_lower_sequences_were_seen() -> None:
    assembly, log, robot = Assembly(EmittedLog(), 10.0), Log(), Robot()
    first, second = robot.episode(4, ends=False), robot.episode(1)
    assert fold(assembly, log, [first[0], first[1], first[3], first[4], second[0]]).sealed == []
    [done] = fold(assembly, log, [first[2]]).sealed
    assert (done.episode.episode_id, done.closed_by) == (first[0].episode_id, ClosedBy.SUCCESSOR)


def test_what_was_sealed_and_added_nothing_is_forgotten_once_settled() -> None:
    cluster = Cluster()
    member = Member(cluster)
    for _ in range(5):
        cluster.log.append(Robot(uuid7()).step(uuid7(), 0), cluster.now_ms())
    read_all(member)
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.commit()
    assert member.owned.emitted.unsettled == 0
