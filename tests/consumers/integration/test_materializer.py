"""`sop materialize` and `sop index` against real servers: killed, joined, cut off, and fed with poison."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from consumers.dead_letters import headers
from infra.local.stack import Stack
from schemas import codec
from schemas.events import ClosedBy, EpisodeEnd, RobotEvent
from schemas.topics import ROBOT_EPISODES, ROBOT_STEPS
from tests.consumers.integration.pipeline import Pipeline, wait_until
from tests.consumers.robots import STATE, Robot, uuid7, vector


def ids(events: list[RobotEvent]) -> set[str]:
    return {event.episode_id for event in events}


def interleaved(random_: random.Random, logs: list[list[RobotEvent]]) -> list[RobotEvent]:
    """Events of several robots, mixed; each robot's own order stays."""
    out, queues = [], [list(log) for log in logs if log]
    while queues:
        queue = random_.choice(queues)
        out.append(queue.pop(0))
        queues = [q for q in queues if q]
    return out


def test_members_killed_and_joining_under_load_lose_and_double_nothing(pipeline: Pipeline) -> None:
    chance = random.Random(1)
    members = [pipeline.start("materialize")]
    robots = [Robot(f"killed-{n}") for n in range(6)]
    sent: list[RobotEvent] = []
    for round_ in range(5):
        episodes = [robot.episode(chance.randint(5, 60), intervene_at=3) for robot in robots for _ in range(3)]
        events = interleaved(chance, episodes)
        half = len(events) // 2
        pipeline.send(events[:half])
        if round_ % 2 == 0:
            members.append(pipeline.start("materialize"))
        time.sleep(chance.uniform(0.2, 2.5))
        pipeline.kill(members.pop(0))
        if not members:
            members.append(pipeline.start("materialize"))
        pipeline.send(events[half:])
        pipeline.send(chance.sample(events, 20))  # resent: their delivery reports were lost
        sent += events
    wait_until(lambda: ids(sent) <= pipeline.newest().keys(), "every episode announced")
    pipeline.check_exactly_once(ids(sent))
    assert [m for m in pipeline.dead_letters() if (m.key() or b"").startswith(b"killed")] == []
    for member in members:
        assert pipeline.stop(member) == 0


def test_poison_goes_to_dead_letters_with_its_reason_and_the_partition_goes_on(pipeline: Pipeline) -> None:
    member, index = pipeline.start("materialize"), pipeline.start("index")
    robot, bad = Robot("poisoned"), Robot("poisoned-2")
    pipeline.send_raw(ROBOT_STEPS, b"poisoned", b"\x07no frame")
    pipeline.send_raw(ROBOT_STEPS, b"poisoned", None)
    pipeline.send_raw(ROBOT_STEPS, b"poisoned", codec.frame(999_999, b"what is this"))
    pipeline.send_raw(ROBOT_EPISODES, b"poisoned", codec.frame(999_999, b"and this"))
    good = robot.episode(10)
    sick = bad.episode(10)
    sick[2] = sick[2].model_copy(update={"state": vector(STATE + 1, 1.0)})
    sick[4] = sick[4].model_copy(update={"reward": float("nan")})
    sick[5] = sick[5].model_copy(update={"action": np.array([np.inf, 0], "<f4").tobytes()})
    pipeline.send(good)
    pipeline.send(sick)
    stray = Robot("stray").step(uuid7(), 0)
    schema_id = codec.unframe(_first_step_value(pipeline))[0]
    pipeline.send_raw(ROBOT_STEPS, b"somebody-else", codec.frame(schema_id, codec.encode(stray)))
    pipeline.flush()
    wait_until(lambda: ids(good) | ids(sick) <= pipeline.newest().keys(), "both episodes announced")
    pipeline.check_exactly_once(ids(good))
    episode = pipeline.newest()[sick[0].episode_id]
    assert [(r.first, r.last) for r in episode.rejected] == [(2, 2), (4, 5)]
    assert (episode.closed_by, episode.step_count, episode.missing_count) == (ClosedBy.COMPLETE, 7, 0)
    expected = ["undecodable", "undecodable", "unknown_schema", "unknown_schema", "foreign_key"]
    expected += ["wrong_length", "not_finite", "not_finite"]

    def mine() -> list[str]:
        keys = (b"poisoned", b"poisoned-2", b"somebody-else")
        return sorted(headers(m)["reason"] for m in pipeline.dead_letters() if m.key() in keys)

    wait_until(lambda: mine() == sorted(expected), "every bad record on dead-letters")
    original = next(m for m in pipeline.dead_letters() if m.value() == b"\x07no frame")
    assert original.key() == b"poisoned"
    assert headers(original)["topic"] == ROBOT_STEPS
    assert "no schema id" in headers(original)["error"]
    wait_until(lambda: len(pipeline.query("SELECT * FROM dead_letters")) == len(expected), "rows of dead letters")
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0


def _first_step_value(pipeline: Pipeline) -> bytes | None:
    value = next(m.value() for m in pipeline.read(ROBOT_STEPS) if len(m.value() or b"") > 100)
    return value if isinstance(value, bytes) else None


def test_an_end_that_never_comes_is_truncated_and_late_events_make_a_second_revision(pipeline: Pipeline) -> None:
    member = pipeline.start("materialize", SOP_MATERIALIZER__EPISODE_TIMEOUT="2")
    index = pipeline.start("index")
    events = Robot("late").episode(12)
    episode = events[0].episode_id
    pipeline.send(events[:6])
    wait_until(lambda: episode in pipeline.newest(), "the episode is closed by its timeout")
    first = pipeline.newest()[episode]
    assert (first.revision, first.end, first.success) == (1, EpisodeEnd.TRUNCATED, None)
    assert (first.closed_by, first.step_count) == (ClosedBy.TIMEOUT, 5)
    pipeline.kill(member)
    member = pipeline.start("materialize", SOP_MATERIALIZER__EPISODE_TIMEOUT="2")
    pipeline.send(events[4:])  # two of them again
    wait_until(lambda: pipeline.newest()[episode].revision == 2, "the late events are in a second revision")
    second = pipeline.newest()[episode]
    assert (second.end, second.success, second.closed_by) == (EpisodeEnd.TERMINATED, True, ClosedBy.COMPLETE)
    assert second.step_count == 12
    pipeline.check_exactly_once([episode])
    sql = f"SELECT revision, end, step_count FROM episodes WHERE episode_id = '{episode}'"
    wait_until(
        lambda: pipeline.query(sql) == [(2, "TERMINATED", 12)], "ClickHouse shows the newest revision alone"
    )
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0


def test_steps_given_up_for_want_of_a_start_are_not_in_the_episode_that_starts_late(pipeline: Pipeline) -> None:
    """The member is restarted in between, and the robot's whole spool is replayed: nobody remembers them."""
    changes = {"SOP_MATERIALIZER__EPISODE_TIMEOUT": "2", "SOP_MATERIALIZER__OFFSETS_INTERVAL": "0.3"}

    def letters() -> int:
        return sum(message.key() == b"startless" for message in pipeline.dead_letters())

    member = pipeline.start("materialize", **changes)
    events = Robot("startless").episode(6)
    pipeline.send(events[1:5])
    wait_until(lambda: letters() == 4, "the steps are given up")
    assert pipeline.stop(member) == 0
    member = pipeline.start("materialize", **changes)
    pipeline.send(events)
    wait_until(lambda: events[0].episode_id in pipeline.newest(), "the episode is announced")
    announced = pipeline.newest()[events[0].episode_id]
    assert [(r.first, r.last) for r in announced.rejected] == [(1, 4)]
    assert [(r.first, r.last) for r in announced.sequences] == [(0, 0), (5, 7)]
    assert (announced.step_count, announced.missing_count) == (2, 0)
    assert letters() == 4
    assert pipeline.stop(member) == 0


@pytest.mark.parametrize("name", ["object_store", "registry", "clickhouse", "broker"])
def test_a_server_that_is_killed_and_comes_back_costs_time_and_nothing_else(
    pipeline: Pipeline, servers: Stack, name: str
) -> None:
    member, index = pipeline.start("materialize"), pipeline.start("index")
    robot = Robot(f"outage-{name}")
    before, after = robot.episode(30), robot.episode(30)
    pipeline.send(before[:20])
    servers.kill(name)
    if name != "broker":
        if name != "registry":
            pipeline.send(before[20:])
        time.sleep(2.0)
    servers.restart(name)
    if name in ("broker", "registry"):
        pipeline.send(before[20:])
    pipeline.send(after)
    wanted = ids(before) | ids(after)
    wait_until(lambda: wanted <= pipeline.newest().keys(), f"both episodes announced after {name} came back")
    pipeline.check_exactly_once(wanted)
    sql = f"SELECT count() FROM episodes WHERE robot_id = 'outage-{name}'"
    wait_until(lambda: pipeline.query(sql) == [(2,)], "both episodes in ClickHouse")
    assert member.poll() is None, "no crash loop"
    assert index.poll() is None
    assert pipeline.stop(member) == 0
    assert pipeline.stop(index) == 0
