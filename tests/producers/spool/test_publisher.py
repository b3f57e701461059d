from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra.clock import ManualClock
from infra.kafka import MESSAGE_BYTES, TOO_LARGE, OutRecord
from producers.outbox import MOST_BYTES
from producers.spool.directory import SpoolDirectory
from producers.spool.messages import read_status, status_line
from schemas.codec import decode, unframe
from schemas.events import Step
from schemas.topics import ROBOT_STATUS, ROBOT_STEPS
from tests.producers.spool.parts import Broker, Ids, Robot, drain, older_client_s, publisher, turns


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def recorded(path: Path, clock: ManualClock, steps: int) -> Robot:
    robot = Robot.boot(path, 1, clock)
    robot.begin()
    robot.steps(steps)
    return robot


def test_a_record_is_framed_keyed_and_carries_its_trace(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 1), Broker()
    drain(publisher(tmp_path, broker, clock), broker, clock)
    start, step = broker.log
    assert (step.topic, step.key, step.headers) == (ROBOT_STEPS, b"robot-1", start.headers)
    assert unframe(step.value)[0] == 7
    assert step.headers[0][0] == "traceparent"
    robot.store.close()


def test_nothing_is_sent_before_its_schema_s_id_is_known_and_the_status_says_why(
    tmp_path: Path, clock: ManualClock
) -> None:
    robot, broker, ids = recorded(tmp_path, clock, 3), Broker(), Ids(known=False)
    publishing = publisher(tmp_path, broker, clock, ids)
    turns(publishing, clock, 5)
    assert not broker.connections[0].waiting
    status = publishing.status()
    assert (status.acknowledged, status.errors) == (0, ("the schema registry: away",))
    assert status.oldest_at == ManualClock().now().timestamp()
    ids.known = True
    drain(publishing, broker, clock)
    assert len(broker.log) == 4
    robot.store.close()


def test_no_more_leaves_than_the_rate_allows(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 300), Broker()
    publishing = publisher(tmp_path, broker, clock, rate=100.0)
    for _ in range(10):
        clock.advance(0.1)
        publishing.turn()
    assert 90 <= len(broker.connections[0].waiting) <= 110 + 1
    robot.store.close()


def test_what_is_refused_is_tried_again_later_and_in_order_on_a_new_connection(
    tmp_path: Path, clock: ManualClock
) -> None:
    robot, broker = recorded(tmp_path, clock, 20), Broker()
    publishing = publisher(tmp_path, broker, clock)
    turns(publishing, clock)
    broker.connections[0].deliver(5)
    broker.connections[0].refuse()
    publishing.turn()
    assert "not authorized" in str(publishing.status().errors)
    assert len(broker.connections) == 1, "not at once"
    drain(publishing, broker, clock)
    assert publishing.status().errors == ()
    assert len(broker.connections) == 2
    assert len(broker.log) == 21, "the five that were delivered are not sent again"
    robot.store.close()


@pytest.mark.parametrize("size", [MESSAGE_BYTES, 2_000_000])
def test_an_event_that_no_client_can_send_is_set_aside_and_what_waits_behind_it_goes_on(
    tmp_path: Path, clock: ManualClock, size: int
) -> None:
    robot, broker = recorded(tmp_path, clock, 5), Broker()
    older_client_s(robot.store, b"x" * size)
    robot.steps(5)
    publishing = publisher(tmp_path, broker, clock)
    drain(publishing, broker, clock)
    assert len(broker.log) == 11
    assert publishing.status().acknowledged == 12
    assert len(broker.connections) == 1, "nothing was sent twice for it"
    (file,) = SpoolDirectory(tmp_path).aside()
    about, body = file.read_bytes().split(b"\n", 1)
    assert json.loads(about) == {
        "topic": ROBOT_STEPS,
        "key": "robot-1",
        "record": "step",
        "version": 1,
        "position": 7,
        "taken_at": 1.0,
        "traceparent": "00-trace",
    }
    assert decode(Step, body).state == b"x" * size
    robot.store.close()


def test_an_event_that_the_topic_refuses_for_its_size_is_set_aside_and_one_that_is_not_too_large_is_tried_again(
    tmp_path: Path, clock: ManualClock
) -> None:
    robot, broker = recorded(tmp_path, clock, 5), Broker()
    older_client_s(robot.store, b"x" * MOST_BYTES[ROBOT_STEPS])  # and a little more: a client could send it
    robot.steps(5)
    publishing = publisher(tmp_path, broker, clock)
    turns(publishing, clock)
    assert not SpoolDirectory(tmp_path).aside(), "compressed it may fit"
    broker.connections[0].deliver(5)
    broker.connections[0].refuse(TOO_LARGE)  # of small ones: the topic takes less than it should
    publishing.turn()
    assert not SpoolDirectory(tmp_path).aside()
    assert TOO_LARGE in str(publishing.status().errors)
    clock.advance(30.0)
    turns(publishing, clock, 2)
    broker.connections[-1].deliver(1)
    broker.connections[-1].refuse(TOO_LARGE)
    turns(publishing, clock, 2)
    drain(publishing, broker, clock)
    assert [file.name[:16] for file in SpoolDirectory(tmp_path).aside()] == ["event-0000000007"]
    assert len(broker.log) == 11
    assert (publishing.status().acknowledged, publishing.status().errors) == (12, ())
    robot.store.close()


def test_a_disk_that_takes_no_file_for_it_is_told_and_asked_again(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 5), Broker()
    older_client_s(robot.store, b"x" * 2_000_000)
    robot.steps(1)
    publishing = publisher(tmp_path, broker, clock)
    (tmp_path / "quarantine").write_text("in the way")
    drain(publishing, broker, clock)
    assert (publishing.status().acknowledged, len(broker.log)) == (6, 6)
    assert "too large for Kafka, and for the disk" in str(publishing.status().errors)
    (tmp_path / "quarantine").unlink()
    drain(publishing, broker, clock)
    assert (publishing.status().acknowledged, publishing.status().errors) == (8, ())
    robot.store.close()


def test_nothing_leaves_after_an_event_that_was_refused_meanwhile(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 5), Broker()
    publishing = publisher(tmp_path, broker, clock)
    turns(publishing, clock)
    robot.steps(5)
    broker.connections[0].refuse()
    turns(publishing, clock)
    assert not broker.connections[0].waiting
    broker.connections[0].deliver(100)
    assert not broker.log
    drain(publishing, broker, clock)
    assert len(broker.log) == 11
    robot.store.close()


def test_a_refused_heartbeat_holds_up_the_next_ones_and_no_event(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 5), Broker()
    publishing = publisher(tmp_path, broker, clock)
    publishing.offer(OutRecord(ROBOT_STATUS, b"robot-1", b"first"))
    publishing.turn()
    broker.connections[0].refuse()
    publishing.offer(OutRecord(ROBOT_STATUS, b"robot-1", b"second"))
    turns(publishing, clock, 2)
    drain(publishing, broker, clock)
    assert [unframe(record.value)[1] for record in broker.log if record.topic == ROBOT_STATUS] == [b"second"]
    assert sum(record.topic != ROBOT_STATUS for record in broker.log) == 6
    robot.store.close()


def test_a_full_queue_is_waited_for(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 50), Broker()
    publishing = publisher(tmp_path, broker, clock)
    broker.connections[0].room = 10
    turns(publishing, clock, 3)
    assert len(broker.connections[0].waiting) == 10
    drain(publishing, broker, clock)
    assert len(broker.log) == 51
    robot.store.close()


def test_a_report_out_of_order_frees_nothing_before_what_is_older(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker = recorded(tmp_path, clock, 3), Broker()
    publishing = publisher(tmp_path, broker, clock)
    turns(publishing, clock)
    broker.connections[0].deliver(10, ROBOT_STEPS)  # the start is still on its way
    turns(publishing, clock)
    assert publishing.status().acknowledged == 0
    broker.connections[0].deliver(10)
    turns(publishing, clock, 2)
    assert publishing.status().acknowledged == 4
    publishing.close(0)
    assert SpoolDirectory(tmp_path).acknowledged() == 4
    robot.store.close()


def test_of_heartbeats_the_newest_is_sent_and_few_wait(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker, ids = recorded(tmp_path, clock, 1), Broker(), Ids(known=False)
    publishing = publisher(tmp_path, broker, clock, ids)
    for number in range(5):
        publishing.offer(OutRecord(ROBOT_STATUS, b"robot-1", b"%d" % number))
        turns(publishing, clock)
    ids.known = True
    for number in range(5, 50):
        publishing.offer(OutRecord(ROBOT_STATUS, b"robot-1", b"%d" % number))
        turns(publishing, clock)
    beats = [record for record, _ in broker.connections[0].waiting if record.topic == ROBOT_STATUS]
    assert [unframe(beat.value)[1] for beat in beats] == [b"%d" % n for n in range(5, 15)]
    robot.store.close()


@pytest.mark.parametrize("rate", [1.0, 300.0, 499.0, 1_200.0, 5_000.0, 1e6])
def test_at_any_rate_one_event_of_fifty_tells_the_clock_s_offset(
    tmp_path: Path, clock: ManualClock, rate: float
) -> None:
    robot, broker = recorded(tmp_path, clock, 199), Broker()
    publishing = publisher(tmp_path, broker, clock, rate=rate)
    for _ in range(250):
        turns(publishing, clock)
    assert len(broker.connections[0].waiting) == 200
    assert broker.connections[0].sampled == 4
    robot.store.close()


@pytest.mark.parametrize("apart", [False, True], ids=["one read", "two reads"])
def test_a_position_that_older_software_gave_twice_wedges_nothing_and_both_events_are_sent(
    tmp_path: Path, clock: ManualClock, apart: bool
) -> None:
    robot, broker = recorded(tmp_path, clock, 5), Broker()
    publishing = publisher(tmp_path, broker, clock)
    if apart:
        turns(publishing, clock, 2)
    robot.store.last -= 1  # a signal came between the write and the count
    robot.steps(1)
    turns(publishing, clock, 2)
    assert len(broker.connections[0].waiting) == 7
    broker.connections[0].deliver(6)
    turns(publishing, clock, 2)
    assert publishing.status().acknowledged == 5, "one of the two is still on its way"
    robot.steps(1)
    drain(publishing, broker, clock)
    assert publishing.status().acknowledged == 7
    assert len(broker.log) == 8
    robot.store.close()


def test_what_is_wrong_is_told_one_by_one(tmp_path: Path, clock: ManualClock) -> None:
    robot, broker, ids = recorded(tmp_path, clock, 1), Broker(), Ids(known=False)
    publishing = publisher(tmp_path, broker, clock, ids)
    turns(publishing, clock)
    broker.connections[0].trouble = "x" * 400
    status = publishing.status("the disk is sick")
    assert status.errors == ("the disk is sick", f"Kafka: {'x' * 400}", "the schema registry: away")
    assert read_status(status_line(status)) == status
    robot.store.close()
