"""A rejected record that the robot sends again is one dead letter, however long ago its episode was stored."""

from __future__ import annotations

import pytest

from schemas.events import RobotEvent
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import STATE, Robot, vector


def read_all(member: Member) -> None:
    for topic in member.cluster.log.records:
        member.consume(topic, 1000)


def settle(member: Member) -> None:
    member.cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()
    member.commit()
    member.commit()  # only now do the committed positions lie behind what the first one announced


@pytest.mark.parametrize("at_once", [True, False], ids=["decided at once", "decided when sealed"])
@pytest.mark.parametrize("again", [slice(2, 3), slice(0, None), slice(0, 3)], ids=["alone", "all", "with start"])
def test_a_rejected_step_sent_again_after_its_episode_was_forgotten_stays_one_dead_letter(
    *, at_once: bool, again: slice
) -> None:
    cluster, robot = Cluster(), Robot()
    events: list[RobotEvent] = robot.episode(4)
    events[2] = events[2].model_copy(update={"state": vector(STATE + 1, 0.0)})
    for batch in (events, events[again]):
        member = Member(cluster)  # restarted: it remembers nothing that is settled
        for event in batch:
            cluster.log.append(event, cluster.now_ms())
        read_all(member)
        if at_once:
            member.decide()
        settle(member)
    assert cluster.dead == [("robot-steps", 1)]
    (announced,) = cluster.training
    assert [(r.first, r.last) for r in announced.rejected] == [(2, 2)]


def test_a_rejected_step_of_an_open_episode_is_a_dead_letter_before_the_episode_ends() -> None:
    cluster, robot = Cluster(), Robot()
    member = Member(cluster)
    events: list[RobotEvent] = robot.episode(2, ends=False)
    events[1] = events[1].model_copy(update={"state": vector(STATE + 1, 0.0)})
    for event in events:
        cluster.log.append(event, cluster.now_ms())
    read_all(member)
    member.decide()
    member.commit()
    assert cluster.dead == [("robot-steps", 0)]
    assert not cluster.training
