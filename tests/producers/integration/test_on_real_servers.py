"""The robot's client against Kafka, the registry and the object store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.settings import Settings
from producers.errors import Undelivered
from producers.robot import RobotClient
from schemas.events import Event, Intervention, RobotEvent, Step
from schemas.topics import ROBOT_TOPICS
from tests.producers.fakes import FEATURES
from tests.producers.integration.conftest import DEADLINE, telling
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
    with RobotClient(settings, "robot-a", tmp_path, close_timeout=DEADLINE) as client:
        for _ in range(3):
            record(client, steps=200)
        telling(client, settings, lambda beat: beat.episodes_ended == 3)
    events = [event for event in read(settings, "robot-a", *ROBOT_TOPICS) if isinstance(event, RobotEvent)]
    assert sorted(event.sequence for event in events) == list(range(3 * (201 + 2 + 2)))
    assert sum(isinstance(event, Step) for event in events) == 3 * 201
    assert sum(isinstance(event, Intervention) for event in events) == 3 * 2
    assert {event.boot_epoch for event in events} == {client.boot_epoch}


def test_all_of_a_robot_lands_in_one_partition_number(settings: Settings, tmp_path: Path) -> None:
    with RobotClient(settings, "robot-b", tmp_path, close_timeout=DEADLINE) as client:
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
