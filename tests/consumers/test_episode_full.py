"""Interventions beyond what an announcement can hold are dead letters, whenever and however often they come."""

from __future__ import annotations

import pytest

from consumers import episode
from consumers.assembly import Assembly
from consumers.dead_letters import Reason
from consumers.emitted import EmittedLog
from consumers.ranges import RangeSet
from schemas import codec
from schemas.events import ClosedBy, InterventionPhase, RobotEvent
from schemas.topics import ROBOT_INTERVENTIONS, TOPICS, TRAINING_EPISODES
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import Robot, decoded, origins, uuid7

ROOM = 3


def events(robot: Robot, interventions: int) -> list[RobotEvent]:
    """An episode with so many beginnings of interventions, all of one size."""
    made: list[RobotEvent] = robot.episode(1, ends=False)
    episode_id, first = made[0].episode_id, made[0].sequence
    for _ in range(interventions):
        made.append(robot.intervention(episode_id, uuid7(), InterventionPhase.BEGIN, 0))
    return [*made, robot.end(episode_id, first, 1)]


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(codec.encode(events(Robot(), 1)[2]))
    monkeypatch.setattr(episode, "MAX_INTERVENTION_BYTES", ROOM * size)


def test_an_episode_takes_what_fits_and_is_complete_although_the_rest_are_dead_letters() -> None:
    made = events(Robot(), ROOM + 2)
    assembly = Assembly(EmittedLog(), 10.0)
    [sealed] = assembly.add(decoded(origins(made))).sealed
    assert sealed.closed_by is ClosedBy.COMPLETE
    assert sealed.episode.interventions == made[2 : 2 + ROOM]
    assert [number for number in range(len(made)) if number in sealed.episode.rejected] == [2 + ROOM, 3 + ROOM]
    letters = sealed.episode.letters(RangeSet())
    assert [(letter.reason, letter.origin.offset) for letter in letters] == [
        (Reason.EPISODE_FULL, ROOM),
        (Reason.EPISODE_FULL, ROOM + 1),
    ]


def test_late_ones_count_together_with_what_is_stored_and_those_sent_again_are_no_new_letters() -> None:
    cluster, robot = Cluster(), Robot()
    made = events(robot, ROOM + 1)
    for batch in ([*made[:4], made[-1]], made[4:-1], made):
        for event in batch:
            cluster.log.append(event, cluster.now_ms())
        member = Member(cluster)  # one that remembers nothing but what it reads
        for topic in cluster.log.records:
            member.consume(topic, 1000)
        cluster.clock.advance(TIMEOUT + 1)
        member.let_time_pass()
        member.commit()
    newest = cluster.training[-1]
    assert len(newest.interventions) == ROOM
    assert [(r.first, r.last) for r in newest.rejected] == [(2 + ROOM, 2 + ROOM)]
    assert cluster.dead == [(ROBOT_INTERVENTIONS, ROOM)]


def test_what_fits_into_an_episode_fits_into_its_announcement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    limit = TOPICS[TRAINING_EPISODES].max_record_bytes
    ranges = limit - episode.MAX_INTERVENTION_BYTES - 2**20
    assert ranges // 5 > 1_000_000, "five bytes for each change of hands"
