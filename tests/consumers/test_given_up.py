"""What was buried because its start did not come stays buried: the start comes, the robot's spool is replayed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from consumers.dead_letters import Reason
from consumers.decode import StepGroup
from consumers.episode import OpenEpisode
from consumers.payload import read_payload
from consumers.ranges import RangeSet
from consumers.records import Origin
from consumers.revision import without_buried
from consumers.tombstone import is_tombstone
from infra.kafka import CommittedOffset
from schemas.events import ClosedBy, EpisodeMaterialized, FrameSegment, RobotEvent
from schemas.frames import FFV1
from schemas.topics import ROBOT_TOPICS
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import Robot


def send(cluster: Cluster, events: Sequence[RobotEvent]) -> None:
    for event in events:
        cluster.log.append(event, cluster.now_ms())


def read_all(member: Member) -> None:
    for topic in member.cluster.log.records:
        member.consume(topic, 1000)


def settle(member: Member) -> None:
    """Everything is read, falls silent, and is committed, so that a successor remembers nothing of it."""
    read_all(member)
    member.cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.commit()
    member.commit()


def newest(cluster: Cluster) -> EpisodeMaterialized:
    return cluster.training[-1]


def listed(cluster: Cluster) -> RangeSet:
    return RangeSet.of(newest(cluster).sequences)


def buried_sequences(cluster: Cluster) -> list[int]:
    """Sequences of robot-steps on dead-letters; offsets of the first copies are sequences less one."""
    return sorted(offset + 1 for topic, offset in cluster.dead if topic == "robot-steps")


@pytest.mark.parametrize("restart", [True, False], ids=["restarted", "not restarted"])
@pytest.mark.parametrize("replayed", ["spool", "start alone"])
def test_steps_that_were_given_up_are_rejected_in_the_episode_whose_start_comes_late(
    *, restart: bool, replayed: str
) -> None:
    cluster, events = Cluster(), Robot().episode(4)
    member = Member(cluster)
    send(cluster, events[1:4])
    settle(member)
    assert cluster.reasons == [Reason.NEVER_STARTED] * 3
    member = Member(cluster) if restart else member
    send(cluster, events if replayed == "spool" else [events[0], *events[4:]])
    settle(member)
    assert buried_sequences(cluster) == [1, 2, 3], "buried once"
    assert list(listed(cluster)) == [(0, 0), (4, 5)]
    announced = newest(cluster)
    assert [(r.first, r.last) for r in announced.rejected] == [(1, 3)]
    assert (announced.closed_by, announced.missing_count, announced.revision) == (ClosedBy.COMPLETE, 0, 1)
    stored = read_payload(cluster.shelf.get(cluster.shelf.key(announced.payload_uri)))
    assert stored.steps.sequence.tolist() == [4]


def test_what_was_given_up_and_would_be_read_again_stays_given_up_although_the_start_is_there_now() -> None:
    cluster, events, other = Cluster(), Robot("late").episode(3), Robot("other").episode(3)
    member = Member(cluster)
    send(cluster, other[:2])  # an older episode holds the committed offsets back
    send(cluster, events[1:4])
    read_all(member)
    cluster.clock.advance(TIMEOUT / 2)
    send(cluster, other[2:3])
    read_all(member)
    cluster.clock.advance(TIMEOUT / 2 + 1)
    member.let_time_pass()
    member.commit()
    assert len(cluster.dead) == 3
    assert cluster.committed["robot-steps", 0].offset == 0
    member = Member(cluster)
    send(cluster, [events[0], events[4]])
    settle(member)
    [late] = [event for event in cluster.training if event.robot_id == "late"]
    assert [(r.first, r.last) for r in late.rejected] == [(1, 3)]
    assert len(cluster.dead) == 3


def test_a_tombstone_whose_member_died_before_its_commit_means_nothing() -> None:
    cluster, events = Cluster(), Robot().episode(3)
    member = Member(cluster)
    send(cluster, events[1:4])
    read_all(member)
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.store()  # and dies
    assert [is_tombstone(key) for key in cluster.shelf.objects] == [True]
    member = Member(cluster)
    send(cluster, [events[0], events[4]])
    settle(member)
    assert (newest(cluster).closed_by, cluster.dead) == (ClosedBy.COMPLETE, [])
    member = Member(cluster)
    send(cluster, events)  # by now the tombstone's events are settled; dead-letters says that they were not buried
    settle(member)
    assert (len(cluster.training), cluster.dead) == (1, [])


def test_of_a_tombstone_only_events_before_the_committed_offsets_count() -> None:
    cluster, events = Cluster(), Robot().episode(5)
    send(cluster, events[1:6])
    member = Member(cluster)
    read_all(member)
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.store()  # all five steps; and dies
    member = Member(cluster)
    member.consume("robot-steps", 2)
    cluster.clock.advance(TIMEOUT + 1)
    member.owned.advance(member.now_ms(), frozenset(ROBOT_TOPICS))
    member.commit()
    assert (len(cluster.dead), cluster.committed["robot-steps", 0].offset) == (2, 2)
    member = Member(cluster)
    send(cluster, [events[0], *events[6:]])
    settle(member)
    assert [(r.first, r.last) for r in newest(cluster).rejected] == [(1, 2)]
    assert list(listed(cluster)) == [(0, 0), (3, 6)]
    assert len(cluster.dead) == 2


def test_a_payload_with_steps_that_were_buried_is_not_taken_for_the_announced_one() -> None:
    """One member read steps and start in one go, and died before its commit; the next read the start too late."""
    cluster, events = Cluster(), Robot().episode(3, ends=False)
    send(cluster, events[1:4])
    cluster.clock.advance(TIMEOUT + 1)
    send(cluster, events[:1])
    member = Member(cluster)
    read_all(member)
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.store()  # steps and start; and dies
    member = Member(cluster)
    member.consume("robot-steps", 10)
    cluster.clock.advance(TIMEOUT + 1)
    member.owned.advance(member.now_ms(), frozenset(ROBOT_TOPICS))
    member.commit()
    settle(member)
    assert list(listed(cluster)) == [(0, 0)]
    member = Member(cluster)
    send(cluster, [*events, Robot().episode(3)[4].model_copy(update={"episode_id": events[0].episode_id})])
    settle(member)
    assert list(listed(cluster)) == [(0, 0), (4, 4)], "in two places"
    assert newest(cluster).revision == 2
    assert buried_sequences(cluster)[:3] == [1, 2, 3]


def test_a_rejected_record_of_an_episode_that_never_started_is_buried_once() -> None:
    cluster, events = Cluster(), Robot().episode(3)
    events[2] = events[2].model_copy(update={"captured_at": events[2].captured_at.replace(year=2300)})
    for _ in range(2):
        member = Member(cluster)
        send(cluster, events[1:4])
        read_all(member)
        member.decide()
        settle(member)
    assert len(cluster.dead) == 3


def test_whatever_was_buried_is_taken_out_of_an_episode_be_it_a_step_or_not() -> None:
    robot = Robot()
    events = robot.episode(3, intervene_at=1, ends=False)
    segment = FrameSegment(sha256="0" * 64, size_bytes=1, codec=FFV1, steps=(), data=b"x")
    events.append(robot.frames(events[0].episode_id, "wrist", [segment]))
    episode = OpenEpisode(events[0].episode_id, robot.robot_id, robot.boot_epoch)
    for event in events:
        episode.take(event)
        episode.seen.add(event.sequence)
    buried = RangeSet([(1, 100)])
    for _ in range(2):  # once more changes nothing
        without_buried(episode, buried)
        assert (episode.interventions, episode.footage, list(episode.seen)) == ([], [], [(0, 0)])
        assert episode.started is events[0]
        assert episode.rejected == buried


def test_one_record_that_was_given_up_makes_no_other_step_of_a_catch_up_dearer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted, not timed: steps of which a record is made, one by one, and ranges that are kept."""
    cluster, lost, whole = Cluster(), Robot("lost").episode(3), Robot("whole").episode(500)
    member = Member(cluster)
    send(cluster, lost[1:3])
    settle(member)
    cluster.committed = {partition: CommittedOffset(0) for partition in cluster.committed}
    send(cluster, [*whole, *lost[1:3]])
    member = Member(cluster)  # reads both again, and knows what was given up
    assert member.owned.emitted.gave_up
    made: list[int] = []
    origin = StepGroup.origin

    def counted(group: StepGroup, at: int) -> Origin:
        made.append(at)
        return origin(group, at)

    monkeypatch.setattr(StepGroup, "origin", counted)
    for _ in range(1000):
        member.consume("robot-steps", 1)
    read_all(member)
    assert len(made) <= 4
    emitted = member.owned.emitted.episode(lost[0].episode_id)
    assert emitted is not None
    assert len(emitted.source_offsets) == 1
    assert [event.episode_id for event in cluster.training] == []
