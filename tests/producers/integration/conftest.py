"""The shared servers with the system deployed, and what arrived on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from infra.deploy import deploy
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.registry import Registry
from infra.settings import Settings
from producers.robot import RobotClient
from schemas.codec import decode, event_type, unframe
from schemas.events import Event, Heartbeat, RobotEvent
from schemas.topics import ROBOT_STATUS, ROBOT_TOPICS, TOPICS

DEADLINE = 120.0
Read = Callable[..., list[Event]]


@pytest.fixture(scope="module")
def settings(stack: Stack) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stack.environment().items():
            patch.setenv(name, value)
        found = Settings()
        deploy(found)
        yield found


def read(settings: Settings, robot_id: str, *topics: str) -> list[tuple[str, Event]]:
    """A robot's events by topic, those of a topic in their order."""
    reader = LogReader(settings.kafka, "test")
    try:
        messages = list(reader.read_to_end(all_partitions(reader, topics), DEADLINE))
    finally:
        reader.close()
    registry = Registry(settings.registry)
    events = []
    for message in messages:
        if message.key() == robot_id.encode():
            topic = TOPICS[str(message.topic())]
            schema_id, body = unframe(message.value())
            record = str(topic.event)
            event = decode(event_type(record), body, registry.schema_of(schema_id, record))
            events.append((int(message.offset() or 0), topic.name, event))
    return [(topic, event) for _, topic, event in sorted(events, key=lambda found: (found[1], found[0]))]


def telling(client: RobotClient, settings: Settings, what: Callable[[Heartbeat], bool]) -> Heartbeat:
    """A heartbeat of this boot that says so, once Kafka has it; reports until there is one, as any may be lost."""
    until = time.monotonic() + DEADLINE
    while True:
        client.heartbeat()
        for _, beat in read(settings, client.robot_id, ROBOT_STATUS):
            if isinstance(beat, Heartbeat) and beat.boot_epoch == client.boot_epoch and what(beat):
                return beat
        assert time.monotonic() < until, "never told"


def once(settings: Settings, robot_id: str) -> list[RobotEvent]:
    """What a reader keeps of the robot topics: each number once, in order.

    Fails when one number stands for two events, or when what is kept of a topic is out of order.
    """
    kept: dict[tuple[int, int], Event] = {}
    newest: dict[str, tuple[int, int]] = {}
    for topic, event in read(settings, robot_id, *ROBOT_TOPICS):
        assert isinstance(event, RobotEvent)
        number = (event.boot_epoch, event.sequence)
        if number in kept:
            assert kept[number] == event
            continue
        assert newest.get(topic, (-1, -1)) < number, f"{topic} is out of order"
        kept[number], newest[topic] = event, number
    return [event for _, event in sorted(kept.items()) if isinstance(event, RobotEvent)]
