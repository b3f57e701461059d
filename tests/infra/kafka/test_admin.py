"""A cluster is made to agree with the description of its topics; what cannot agree is refused."""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from functools import partial

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from infra.errors import DeploymentConflict, KafkaUnavailable
from infra.kafka import CommittedOffset, GroupConsumer
from infra.kafka.admin import ClusterAdmin, Standing, missing_topics, topic_config
from infra.kafka.config import MESSAGE_BYTES
from infra.local.stack import Stack
from infra.settings import KafkaSettings, Settings
from schemas.topics import ROBOT_TOPICS, TOPICS
from tests.infra.conftest import MakeTopic
from tests.infra.kafka.helpers import numbered, until, write


@pytest.fixture
def admin(settings: Settings) -> ClusterAdmin:
    return ClusterAdmin(settings.kafka)


def config_of(kafka: KafkaSettings, topic: str) -> dict[str, str]:
    """A topic's settings, as the broker has them."""
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    entries = client.describe_configs([resource])[resource].result(30)
    return {name: str(entry.value) for name, entry in entries.items()}


def settles(kafka: KafkaSettings, topic: str, wanted: dict[str, str]) -> None:
    """Wait until the broker tells these; it answers from its own copy, a moment behind what it has agreed to."""
    until(lambda: wanted.items() <= config_of(kafka, topic).items(), partial(time.sleep, 0.1))


def test_a_missing_topic_is_created_as_described_and_a_second_time_nothing_is(
    admin: ClusterAdmin, settings: Settings, name: str
) -> None:
    topic = TOPICS["robot-steps"].model_copy(update={"name": name, "partitions": 3})
    assert admin.ensure_topics([topic]) == [name]
    assert admin.ensure_topics([topic]) == []
    assert admin.partition_counts()[name] == 3
    settles(
        settings.kafka,
        name,
        {
            "retention.ms": str(7 * 86_400_000),
            "cleanup.policy": "delete",
            "message.timestamp.type": "LogAppendTime",
        },
    )


def test_settings_of_an_existing_topic_are_aligned(
    admin: ClusterAdmin, settings: Settings, make_topic: MakeTopic
) -> None:
    topic = make_topic(retention_days=7)
    assert admin.ensure_topics([topic.model_copy(update={"retention_days": None, "cleanup": "compact"})]) == []
    settles(settings.kafka, topic.name, {"retention.ms": "-1", "cleanup.policy": "compact"})


def test_another_partition_count_is_refused_before_anything_changes(
    admin: ClusterAdmin, settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topic = make_topic(partitions=2, retention_days=7)
    changed = topic.model_copy(update={"partitions": 4, "retention_days": 1})
    other = topic.model_copy(update={"name": f"{name}-other"})
    with pytest.raises(DeploymentConflict, match=rf"{name} has 2 partitions, topics.yaml says 4"):
        admin.ensure_topics([other, changed])
    assert other.name not in admin.partition_counts()
    assert config_of(settings.kafka, name)["retention.ms"] == str(7 * 86_400_000)


def test_fewer_replicas_than_are_asked_for_are_refused_and_by_default_there_are_as_many_as_brokers(
    admin: ClusterAdmin, settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topic = make_topic(retention_days=7)
    assert admin.ensure_topics([topic]) == [], "one broker, one replica"
    greedy = ClusterAdmin(settings.kafka.model_copy(update={"replication_factor": 2}))
    with pytest.raises(DeploymentConflict, match=rf"{name} has 1 replicas.* 2 .*SOP_KAFKA__REPLICATION_FACTOR=1"):
        greedy.ensure_topics([topic.model_copy(update={"retention_days": 1})])
    assert config_of(settings.kafka, name)["retention.ms"] == str(7 * 86_400_000)


def test_deployments_at_the_same_time_agree_on_who_made_a_topic(
    admin: ClusterAdmin, settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one is through before this one has looked again."""
    topic = TOPICS["robot-steps"].model_copy(update={"name": name, "partitions": 2})
    survey, calls = ClusterAdmin._survey, itertools.count()

    def late(this: ClusterAdmin) -> tuple[int, dict[str, Standing]]:
        found = survey(this)
        if next(calls) == 0:
            assert ClusterAdmin(settings.kafka).ensure_topics([topic]) == [name]
        return found

    monkeypatch.setattr(ClusterAdmin, "_survey", late)
    assert admin.ensure_topics([topic]) == []
    again = itertools.count()
    other = topic.model_copy(update={"partitions": 3})
    monkeypatch.setattr(ClusterAdmin, "_survey", lambda this: (1, {}) if next(again) == 0 else survey(this))
    with pytest.raises(DeploymentConflict, match=f"{name} has 2 partitions, topics.yaml says 3"):
        admin.ensure_topics([other])


@pytest.mark.parametrize(
    ("partitions", "replicas", "asked", "conflict"),
    [
        (4, 3, 3, None),
        (4, 3, 2, None),
        (4, 1, 1, None),
        (4, 2, 3, "has 2 replicas of a partition, and 3 are asked for"),
        (4, 0, 1, "has 0 replicas"),
        (8, 3, 3, "has 8 partitions"),
        (2, 1, 3, "has 2 partitions"),
    ],
)
def test_a_topic_that_is_there_is_compared(
    partitions: int, replicas: int, asked: int, conflict: str | None
) -> None:
    steps, status = TOPICS["robot-steps"], TOPICS["robot-status"]
    standing = {steps.name: Standing(partitions, replicas), "another": Standing(1, 1)}
    if conflict is None:
        assert missing_topics([steps, status], standing, asked) == [status]
    else:
        with pytest.raises(DeploymentConflict, match=f"robot-steps {conflict}"):
            missing_topics([status, steps], standing, asked)


def test_first_offsets_are_the_earliest_and_are_set_once(
    admin: ClusterAdmin, settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    topic = make_topic(partitions=2)
    write(settings.kafka, numbered(name, 0, 3))
    assert admin.ensure_first_offsets(name, [topic]) == 2
    assert admin.ensure_first_offsets(name, [topic]) == 0
    with closing(GroupConsumer(settings.kafka, name, [name])) as stranger:
        found = stranger.committed([(name, 0), (name, 1)])
    assert {partition: position.offset for partition, position in found.items()} == {(name, 0): 0, (name, 1): 0}


def test_a_topic_that_joins_later_gets_first_offsets_and_the_others_keep_theirs(
    admin: ClusterAdmin, settings: Settings, make_topic: MakeTopic, name: str
) -> None:
    early = make_topic("-early", partitions=1)
    write(settings.kafka, numbered(early.name, 0, 5))
    admin.ensure_first_offsets(name, [early])
    with closing(GroupConsumer(settings.kafka, name, [early.name])) as member:
        until(lambda: bool(member.assigned), lambda: member.consume(1, 0.1))
        member.commit({(early.name, 0): CommittedOffset(4, "read so far")})
    late = make_topic("-late", partitions=1)
    assert admin.ensure_first_offsets(name, [early, late]) == 1
    with closing(GroupConsumer(settings.kafka, name, [early.name])) as stranger:
        found = stranger.committed([(early.name, 0), (late.name, 0)])
    assert list(found.values()) == [CommittedOffset(4, "read so far"), CommittedOffset(0)]


def test_dead_letters_may_be_larger_than_what_they_hold_and_replicas_must_agree() -> None:
    limits = {name: int(topic_config(topic, 1)["max.message.bytes"]) for name, topic in TOPICS.items()}
    assert max(limits[name] for name in ROBOT_TOPICS) + 2_000 < limits["dead-letters"] == MESSAGE_BYTES
    assert "min.insync.replicas" not in topic_config(TOPICS["robot-steps"], 2)
    assert topic_config(TOPICS["robot-steps"], 3)["min.insync.replicas"] == "2"


def test_a_cluster_that_is_down_or_frozen_is_unavailable(stack: Stack, settings: Settings) -> None:
    down = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1", "request_timeout": 0.5})
    with pytest.raises(KafkaUnavailable):
        ClusterAdmin(down).ping()
    frozen = ClusterAdmin(settings.kafka.model_copy(update={"request_timeout": 0.5}))
    stack.pause("broker")
    try:
        with pytest.raises(KafkaUnavailable):
            frozen.ping()
        with pytest.raises(KafkaUnavailable):
            frozen.partition_counts()
    finally:
        stack.resume("broker")
    admin = ClusterAdmin(settings.kafka)
    until(lambda: admin.ping() == 1, partial(time.sleep, 0.1))
