"""A second start that comes after its episode was closed is a dead letter, and not listed without a trace."""

from __future__ import annotations

from schemas.events import ClosedBy
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import Robot


def test_a_second_start_that_comes_late_is_rejected_and_a_dead_letter() -> None:
    cluster, robot = Cluster(), Robot()
    member = Member(cluster)
    events = robot.episode(3, ends=False)
    second = robot.start(events[0].episode_id, instruction="something else")
    for batch in (events, [second]):
        for event in batch:
            place = cluster.log.append(event, cluster.now_ms())
        for topic in cluster.log.records:
            member.consume(topic, 1000)
        cluster.clock.advance(TIMEOUT + 1)
        member.let_time_pass()
        member.commit()
    newest = cluster.training[-1]
    assert cluster.dead == [(place.topic, place.offset)]
    assert [(r.first, r.last) for r in newest.sequences] == [(0, 3)]
    assert [(r.first, r.last) for r in newest.rejected] == [(4, 4)]
    assert (newest.revision, newest.closed_by, newest.instruction) == (2, ClosedBy.TIMEOUT, "push the puck")
