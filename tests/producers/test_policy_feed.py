from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from infra.errors import InfraError, KafkaUnavailable, OffsetsExpired, RegistryUnavailable
from infra.kafka import Partition
from infra.kafka.log_reader import BEGINNING
from infra.policies import rollout
from infra.settings import Settings
from producers import policy_feed
from producers.policy_feed import Heard, KafkaPolicyFeed
from schemas.codec import AvroSchema, encode, frame, latest
from schemas.events import PolicyRollout
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS
from tests.producers.fakes import announcement, rolled_out


@dataclass(frozen=True)
class Record:
    at: int
    data: bytes
    where: str = POLICY_VERSIONS

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def topic(self) -> str:
        return self.where

    def key(self) -> bytes:
        return b"line"

    def value(self) -> bytes:
        return self.data


@dataclass
class ScriptedLog:
    """One partition. A failure takes the next records with it, as a consumer's error does."""

    records: list[Record] = field(default_factory=list)
    failures: list[InfraError] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    position: int = -1
    rollouts: list[Record] = field(default_factory=list)
    caught_up: int = 0
    ends: dict[Partition, int] = field(default_factory=dict)

    def write(self, *versions: int) -> None:
        for version in versions:
            body = frame(1, encode(announcement(version, b"weights")))
            self.records.append(Record(len(self.records), body))

    def partitions(self, topic: str) -> list[Partition]:
        return [(topic, 0)]

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        start = offsets[POLICY_VERSIONS, 0]
        self.starts.append(start)
        self.ends = {}
        self.position = 0 if start == BEGINNING else start

    def read_to_end(self, offsets: Mapping[Partition, int], _silence: float) -> list[Record]:
        assert list(offsets) == [(POLICY_ROLLOUTS, 0)]
        self.caught_up += 1
        return self.rollouts

    def consume(self, count: int, _timeout: float) -> list[Record]:
        taken = self.records[self.position :][:count]
        self.position += len(taken)
        if self.failures:
            raise self.failures.pop(0)
        return taken


@dataclass
class ScriptedRegistry:
    failures: int = 0

    def schema_of(self, _schema_id: int, record: str) -> AvroSchema:
        if self.failures:
            self.failures -= 1
            raise RegistryUnavailable("down")
        return latest(record)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> ScriptedLog:
    log = ScriptedLog()
    monkeypatch.setattr(policy_feed, "LogReader", lambda *_: log)
    return log


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> ScriptedRegistry:
    registry = ScriptedRegistry()
    monkeypatch.setattr(policy_feed, "Registry", lambda *_: registry)
    return registry


def versions(heard: list[Heard]) -> list[int]:
    return [item.announced.event.version for item in heard if item.announced]  # type: ignore[union-attr]


def caught_up() -> KafkaPolicyFeed:
    feed = KafkaPolicyFeed(Settings(), "robot-1")
    assert feed.poll(0.0) == []
    return feed


def test_all_rollouts_are_heard_before_any_version(log: ScriptedLog, registry: ScriptedRegistry) -> None:
    body = frame(1, encode(rolled_out(rollout.hold("line", 1))))
    log.rollouts = [Record(4, body, POLICY_ROLLOUTS), Record(5, b"nonsense", POLICY_ROLLOUTS)]
    log.write(1)
    feed = KafkaPolicyFeed(Settings(), "robot-1")
    registry.failures = 1
    with pytest.raises(RegistryUnavailable):
        feed.poll(0.0)
    first, second = feed.poll(0.0)
    assert first.announced is not None
    assert first.announced.event.record == PolicyRollout.record
    assert (second.announced, second.offset) == (None, 5)
    assert "no schema id" in second.problem
    assert versions(feed.poll(0.0)) == [1]


def test_an_outage_of_the_registry_loses_no_announcement(log: ScriptedLog, registry: ScriptedRegistry) -> None:
    feed = caught_up()
    log.write(1, 2, 3)
    registry.failures = 2
    for _ in range(2):
        with pytest.raises(RegistryUnavailable):
            feed.poll(0.0)
    assert versions(feed.poll(0.0)) == [1, 2, 3]
    assert feed.poll(0.0) == []


def test_what_came_beside_an_error_is_read_again_and_what_was_returned_is_not(
    log: ScriptedLog, registry: ScriptedRegistry
) -> None:
    assert registry.failures == 0
    feed = caught_up()
    log.write(1, 2)
    assert versions(feed.poll(0.0)) == [1, 2]
    log.write(3)
    log.failures = [KafkaUnavailable("the broker hung up")]
    with pytest.raises(KafkaUnavailable):
        feed.poll(0.0)
    assert versions(feed.poll(0.0)) == [3]
    assert log.starts == [BEGINNING, 2]


def test_a_topic_that_was_made_anew_is_read_from_its_new_beginning(
    log: ScriptedLog, registry: ScriptedRegistry
) -> None:
    assert registry.failures == 0
    feed = caught_up()
    log.write(1, 2)
    assert versions(feed.poll(0.0)) == [1, 2]
    log.records.clear()
    log.write(7)
    log.failures = [OffsetsExpired("offset 2 is out of range")]
    with pytest.raises(OffsetsExpired):
        feed.poll(0.0)
    assert feed.poll(0.0) == [], "rollouts again"
    assert versions(feed.poll(0.0)) == [7]


def test_all_was_heard_once_both_topics_were_returned_to_their_ends(
    log: ScriptedLog, registry: ScriptedRegistry
) -> None:
    feed = caught_up()
    log.write(1)
    log.ends = {}

    def end(*topics: str) -> None:
        log.ends |= {(topic, 0): 1 for topic in topics}

    assert (versions(feed.poll(0.0)), feed.heard_all()) == ([1], False)
    end(POLICY_ROLLOUTS)
    assert (feed.poll(0.0), feed.heard_all()) == ([], False), "more versions may be on their way"
    log.write(2)
    end(POLICY_VERSIONS)
    registry.failures = 1
    with pytest.raises(RegistryUnavailable):
        feed.poll(0.0)
    assert not feed.heard_all(), "the end was reached, and what lies before it was not returned"
    assert (versions(feed.poll(0.0)), feed.heard_all()) == ([2], False)
    end(POLICY_ROLLOUTS, POLICY_VERSIONS)
    assert (feed.poll(0.0), feed.heard_all()) == ([], True)
    log.failures = [KafkaUnavailable("the broker hung up")]
    with pytest.raises(KafkaUnavailable):
        feed.poll(0.0)
    assert feed.heard_all(), "an outage makes nothing unheard"
    log.failures = [OffsetsExpired("offset 2 is out of range")]
    with pytest.raises(OffsetsExpired):
        feed.poll(0.0)
    assert not feed.heard_all(), "a topic that was made anew is another one"
