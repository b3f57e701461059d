"""What these tests do around the learner: put episodes on the topics, start it, kill it, read what it said."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from infra.kafka import EventProducer, LogReader, OutRecord
from infra.kafka.admin import ClusterAdmin
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.policies.keys import key_settings, write_pair
from infra.registry import Registry
from infra.settings import load_settings
from learner.patience import Patience
from schemas import codec
from schemas.events import Event, Heartbeat, PolicyVersion, TrainingLineage, TrainingProgress
from schemas.topics import (
    EPISODE_TOPICS,
    POLICY_VERSIONS,
    ROBOT_STATUS,
    TOPICS,
    TRAINING_EPISODES,
    TRAINING_LINEAGE,
    TRAINING_PROGRESS,
)
from tests.learner.synthetic import START, Synthetic
from tests.preloaded import Command

E = TypeVar("E", bound=Event)

FAST = {"HIDDEN": "[16]", "BATCH_SIZE": "32", "PRETRAIN_STEPS": "40", "PUBLISH_EVERY": "20"}
"""Settings under which a version takes milliseconds."""


class Site:
    """A stack with topics, schemas and a bucket, and clients of it."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack = stack
        self.directory = directory
        env_file = directory / "stack.env"
        write_pair(directory / "learner")
        own = {"SOP_CACHE__DIRECTORY": str(directory / "cache")}  # else payloads of other tests are there already
        settings = stack.environment() | key_settings(directory / "learner") | own
        env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.environment = {**os.environ, "SOP_ENV_FILE": str(env_file)}
        self.settings = load_settings(env_file)
        self.store = ObjectStore(self.settings.s3)
        self._registry = Registry(self.settings.registry)
        self._deploy()
        self._producer = EventProducer(self.settings.kafka, "test")

    def put(self, made: Iterable[Synthetic], *, payload: bool = True) -> None:
        """Store payloads and announce the episodes, in this order."""
        for item in made:
            if payload:
                self.store.put(self.store.key(item.event.payload_uri), item.payload)
            self._send(TRAINING_EPISODES, item.event.robot_id, item.event)
        assert self._producer.flush(30.0) == 0

    def beat(self, robot: str, simulated_seconds: float, ended: int) -> None:
        """A waiting robot's heartbeat."""
        event = Heartbeat(
            robot_id=robot,
            boot_epoch=1,
            reported_at=START,
            spool_depth=0,
            spool_age_seconds=0.0,
            policy="",
            policy_version=0,
            episodes_ended=ended,
            simulated_seconds=simulated_seconds,
            waiting=True,
        )
        self._send(ROBOT_STATUS, robot, event)
        assert self._producer.flush(30.0) == 0

    def versions(self, policy: str) -> list[PolicyVersion]:
        """What was announced of a line, in the order of the topic."""
        return [event for event in self._read(POLICY_VERSIONS, PolicyVersion) if event.policy == policy]

    def progress(self, policy: str) -> list[TrainingProgress]:
        """What the line's learners told, in the order of the topic."""
        return [event for event in self._read(TRAINING_PROGRESS, TrainingProgress) if event.policy == policy]

    def lineage(self, policy: str) -> list[TrainingLineage]:
        """What the line's learners told of what their versions were made from, in the order of the topic."""
        return [event for event in self._read(TRAINING_LINEAGE, TrainingLineage) if event.policy == policy]

    def wait_for_version(self, policy: str, version: int, timeout: float = 180.0) -> list[PolicyVersion]:
        """The announcements, once the version is among them."""

        def announced() -> list[PolicyVersion]:
            found = self.versions(policy)
            return found if found and found[-1].version >= version else []

        return wait_for(announced, timeout)

    @contextmanager
    def materializer(self) -> Iterator[None]:
        """`sop materialize` runs."""
        admin, group = ClusterAdmin(self.settings.kafka), self.settings.materializer.group
        topics = [TOPICS[name] for name in EPISODE_TOPICS]
        Patience(threading.Event()).call("Kafka", lambda: admin.ensure_first_offsets(group, topics))
        with self.learner("materializer", command=("sop", "materialize")):
            yield

    @contextmanager
    def learner(
        self, policy: str, settings: Mapping[str, str] = {}, *, command: tuple[str, ...] = ("sop", "learn")
    ) -> Iterator[Command]:
        """A learner process; killed at the end if it still runs. Its log is learner-<policy>.log."""
        names = {"POLICY": policy, **FAST, **settings}
        environment = self.environment | {f"SOP_LEARNER__{name}": value for name, value in names.items()}
        log = self.directory / f"learner-{policy}.log"
        process = Command(command, environment, log, log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def log(self, policy: str) -> str:
        """What the line's learners wrote."""
        return (self.directory / f"learner-{policy}.log").read_text()

    def _send(self, topic: str, key: str, event: Event) -> None:
        schema_id = self._registry.id_of(topic, codec.latest(event.record))
        record = OutRecord(topic, key.encode(), codec.frame(schema_id, codec.encode(event)))
        assert self._producer.send(record)

    def _read(self, topic: str, event_type: type[E]) -> list[E]:
        reader = LogReader(self.settings.kafka, "test-reader")
        try:
            messages = list(reader.read_to_end(all_partitions(reader, [topic]), 30.0))
        finally:
            reader.close()
        return [codec.decode(event_type, codec.unframe(message.value())[1]) for message in messages]

    def _deploy(self) -> None:
        # As infra.deploy, less ClickHouse: the learner does without.
        ClusterAdmin(self.settings.kafka).ensure_topics(TOPICS.values())
        for topic in TOPICS.values():
            if topic.event is not None:
                self._registry.deploy(topic)
        self.store.ensure_bucket()


T = TypeVar("T")


def steps_told(told: Iterable[TrainingProgress]) -> set[int]:
    """Learner steps whose draws were told."""
    ranges = ((task.first_step, len(task.online_shares)) for event in told for task in event.mixing)
    return {step for first, count in ranges for step in range(first, first + count)}


def wait_for(question: Callable[[], T], timeout: float = 180.0) -> T:
    """The first answer that is true, asked for at most `timeout` seconds."""
    until = time.monotonic() + timeout
    while True:
        answer = question()
        if answer:
            return answer
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def terminate(process: Command, within: float) -> int:
    """Exit code after SIGTERM, which must be heard in time."""
    process.send_signal(signal.SIGTERM)
    return process.wait(within)
