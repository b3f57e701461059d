"""The robot's client against Kafka, the registry and the object store."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from infra.kafka import EventProducer, LogReader, OutRecord
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from producers.errors import Undelivered
from producers.robot import RobotClient
from schemas.codec import encode, frame, latest
from schemas.events import Event, Heartbeat, Intervention, PolicyActivated, PolicyVersion, RobotEvent, Step
from schemas.topics import POLICY_ACTIVATIONS, POLICY_VERSIONS, ROBOT_STATUS, ROBOT_TOPICS
from tests.producers.fakes import FEATURES, announcement
from tests.producers.integration.conftest import DEADLINE
from tests.producers.integration.conftest import read as arrived


def read(settings: Settings, robot_id: str, *topics: str) -> list[Event]:
    return [event for _, event in arrived(settings, robot_id, *topics)]


def record(client: RobotClient, steps: int) -> None:
    with client.episode(task="push", instruction="Push.", features=FEATURES, fps=10.0) as episode:
        for _ in range(steps):
            episode.step(state=np.zeros(3), action=np.ones(2))
        with episode.intervention(operator="ada", reason="test"):
            episode.step(state=np.zeros(3), action=np.ones(2))
        episode.end(success=True, final_state=np.zeros(3))


def test_what_was_recorded_is_in_kafka_once_when_the_client_is_closed(settings: Settings, tmp_path: Path) -> None:
    with RobotClient(settings, "robot-a", tmp_path) as client:
        for _ in range(3):
            record(client, steps=200)
    events = [event for event in read(settings, "robot-a", *ROBOT_TOPICS) if isinstance(event, RobotEvent)]
    assert sorted(event.sequence for event in events) == list(range(3 * (201 + 2 + 2)))
    assert sum(isinstance(event, Step) for event in events) == 3 * 201
    assert sum(isinstance(event, Intervention) for event in events) == 3 * 2
    (epoch,) = {event.boot_epoch for event in events}
    beats = [event for event in read(settings, "robot-a", ROBOT_STATUS) if isinstance(event, Heartbeat)]
    assert (beats[-1].boot_epoch, beats[-1].episodes_ended) == (epoch, 3)


def test_all_of_a_robot_lands_in_one_partition_number(settings: Settings, tmp_path: Path) -> None:
    with RobotClient(settings, "robot-b", tmp_path) as client:
        record(client, steps=1)
    reader = LogReader(settings.kafka, "test")
    messages = list(reader.read_to_end(all_partitions(reader, ROBOT_TOPICS), DEADLINE))
    reader.close()
    assert len({message.partition() for message in messages if message.key() == b"robot-b"}) == 1


def test_a_broker_that_is_away_does_not_hold_up_a_step_and_gets_everything_later(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    with RobotClient(settings, "robot-c", tmp_path, close_timeout=DEADLINE) as client:
        record(client, steps=5)
        stack.pause("broker")
        try:
            record(client, steps=500)
            assert client._outbox.depth() > 0
        finally:
            stack.resume("broker")
    events = [event for event in read(settings, "robot-c", *ROBOT_TOPICS) if isinstance(event, RobotEvent)]
    assert sorted(event.sequence for event in events) == list(range(len(events)))
    assert sum(isinstance(event, Step) for event in events) == 507


def test_closing_while_the_broker_is_away_says_what_is_not_delivered(
    settings: Settings, stack: Stack, tmp_path: Path
) -> None:
    client = RobotClient(settings, "robot-d", tmp_path)
    stack.pause("broker")
    try:
        record(client, steps=10)
        with pytest.raises(Undelivered, match=r"15 events were not acknowledged.* are kept in"):
            client.close(timeout=0.5)
    finally:
        stack.resume("broker")
    RobotClient(settings, "robot-d", tmp_path, close_timeout=DEADLINE).close()
    events = [event for event in read(settings, "robot-d", *ROBOT_TOPICS) if isinstance(event, RobotEvent)]
    assert {event.sequence for event in events} == set(range(15))


def publish(settings: Settings, announced: PolicyVersion, data: bytes | None) -> None:
    if data is not None:
        store = ObjectStore(settings.s3)
        store.put(store.key(announced.artifact_uri), data)
    schema_id = Registry(settings.registry).id_of(POLICY_VERSIONS, latest(PolicyVersion.record))
    producer = EventProducer(settings.kafka, "test-learner")
    key = f"{announced.policy}/{announced.version}".encode()
    producer.send(OutRecord(POLICY_VERSIONS, key, frame(schema_id, encode(announced))))
    assert producer.flush(DEADLINE) == 0


def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.05)


def test_a_published_policy_reaches_the_robot_and_its_activation_is_announced(
    settings: Settings, tmp_path: Path
) -> None:
    uri = f"s3://{settings.s3.bucket}/policies/inbox-test/"
    with RobotClient(settings, "robot-f", tmp_path) as client:
        inbox = client.follow("inbox-test")
        publish(settings, announcement(1, b"one", policy="inbox-test", artifact_uri=f"{uri}1"), b"one")
        file = inbox.wait_for(lambda version: version.version >= 1, DEADLINE)
        assert file is not None
        assert file.read() == b"one"
        client.activate(file)

        publish(settings, announcement(2, b"two", policy="inbox-test", artifact_uri=f"{uri}2"), b"altered")
        eventually(lambda: any("v2" in error for error in inbox.errors()))
        assert inbox.newest() == file

        publish(settings, announcement(3, b"three", policy="inbox-test", artifact_uri=f"{uri}3"), b"three")
        assert inbox.wait_for(lambda version: version.version >= 3, DEADLINE) is not None
    (activated,) = read(settings, "robot-f", POLICY_ACTIVATIONS)
    assert isinstance(activated, PolicyActivated)
    assert (activated.policy, activated.version) == ("inbox-test", 1)
