"""Payloads of members that died before their commit never become the base of a later revision."""

from __future__ import annotations

from collections.abc import Sequence

from consumers.ranges import RangeSet
from schemas.events import EpisodeEnd, RobotEvent
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import Robot


def deliver(cluster: Cluster, member: Member, events: Sequence[RobotEvent]) -> None:
    for event in events:
        cluster.log.append(event, cluster.now_ms())
    for topic in cluster.log.records:
        member.consume(topic, 1000)


def fall_silent(cluster: Cluster, member: Member) -> None:
    cluster.clock.advance(TIMEOUT + 1)
    member.let_time_pass()


def test_a_record_that_comes_again_is_joined_to_what_was_announced_and_not_to_an_orphan_of_higher_revision() -> (
    None
):
    cluster = Cluster()
    member = Member(cluster)
    events, other = Robot("late").episode(6), Robot("other")
    deliver(cluster, member, events[:4])
    fall_silent(cluster, member)
    member.commit()
    for late in (events[4:5], events[5:6]):  # sealed twice while the commit has to wait
        deliver(cluster, member, late)
        fall_silent(cluster, member)
    member.store()  # revisions 2 and 3 are stored; then the member dies
    member = Member(cluster)
    deliver(cluster, member, events[6:])
    member.commit()  # revision 2 is announced, with everything
    for _ in range(2):  # others move the committed positions on, so that a successor remembers nothing
        deliver(cluster, member, other.episode(2))
        member.commit()
    member = Member(cluster)
    deliver(cluster, member, events[6:7])
    fall_silent(cluster, member)
    member.commit()
    newest = [event for event in cluster.training if event.episode_id == events[0].episode_id][-1]
    assert RangeSet.of(newest.sequences).covers(0, 7), "lost write"
    assert (newest.revision, newest.end) == (2, EpisodeEnd.TERMINATED)
