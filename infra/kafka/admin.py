"""Making a cluster agree with `schemas/topics.yaml`: topics, their settings, and first offsets of groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import stamina
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from infra.errors import DeploymentConflict, KafkaUnavailable
from infra.kafka.config import Partition, client_config, open_client, settle
from infra.kafka.positions import committed_offsets
from infra.settings import KafkaSettings
from schemas.topics import Topic

DAY_MS = 86_400_000
# More cost disk and network; with three, one broker may be down for work while another one breaks.
_MOST_REPLICAS = 3


@dataclass(frozen=True, slots=True)
class Standing:
    """A topic that is there: its partitions, and the replicas of the one that has the fewest."""

    partitions: int
    replicas: int


class _Raced(KafkaUnavailable):
    """Another deployment makes the same topics now."""


class ClusterAdmin:
    """Idempotent changes to a cluster. Every method raises KafkaUnavailable when there is no answer in time.

    Raises:
        SettingInvalid: see `open_client`.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._timeout = kafka.request_timeout
        self._admin = open_client(AdminClient, client_config(kafka, "sop-admin"))

    def ping(self) -> int:
        """Number of brokers that answer."""
        return self._survey()[0]

    def partition_counts(self) -> dict[str, int]:
        """Partitions by topic, of all topics of the cluster."""
        return {name: topic.partitions for name, topic in self._survey()[1].items()}

    def ensure_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create what is missing and align settings of what exists; the names that were created.

        Raises:
            DeploymentConflict: see `missing_topics`.
        """
        wanted, made = list(topics), list[str]()
        for attempt in stamina.retry_context(on=_Raced, attempts=None, timeout=self._timeout):
            with attempt:
                self._ensure(wanted, made)
        return made

    def ensure_first_offsets(self, group: str, topics: Sequence[Topic]) -> int:
        """Commit the earliest offset wherever `group` has none yet; how many partitions that were.

        A group that is at work is left alone where it has offsets, and has them everywhere.
        """
        # On a fresh cluster partitions may lack their leader, and the group its coordinator, for a moment.
        partitions = [(topic.name, n) for topic in topics for n in range(topic.partitions)]
        for attempt in stamina.retry_context(on=KafkaUnavailable, attempts=None, timeout=self._timeout):
            with attempt:
                return self._set_first_offsets(group, partitions)
        raise AssertionError("unreachable: the last attempt raises")

    def _set_first_offsets(self, group: str, partitions: Sequence[Partition]) -> int:
        committed = committed_offsets(self._kafka, group, partitions)
        unset = [TopicPartition(*partition) for partition in partitions if partition not in committed]
        if not unset:
            return 0
        earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        found = self._settle(self._admin.list_offsets(dict.fromkeys(unset, earliest)))
        first = [TopicPartition(p.topic, p.partition, low.offset) for p, low in found.items()]
        self._settle(self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, first)]))
        return len(first)

    def _survey(self) -> tuple[int, dict[str, Standing]]:
        """How many brokers there are, and all topics by name."""
        try:
            found = self._admin.list_topics(timeout=self._timeout)
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        topics = {
            name: Standing(
                len(topic.partitions), min((len(p.replicas) for p in topic.partitions.values()), default=0)
            )
            for name, topic in found.topics.items()
        }
        return len(found.brokers), topics

    def _ensure(self, wanted: Sequence[Topic], made: list[str]) -> None:
        """Compare, create and align; names that were created go to `made`."""
        brokers, standing = self._survey()
        replicas = self._kafka.replication_factor or min(_MOST_REPLICAS, brokers)
        missing = missing_topics(wanted, standing, replicas)
        if missing:
            made += self._create(missing, replicas)
        present = [topic for topic in wanted if topic.name in standing]
        if present:
            changes = [_alteration(topic, standing[topic.name].replicas) for topic in present]
            self._settle(self._admin.incremental_alter_configs(changes))
        if others := [topic.name for topic in missing if topic.name not in made]:
            raise _Raced(f"another deployment made {', '.join(others)} a moment ago, and they cannot be seen yet")

    def _create(self, topics: Sequence[Topic], replicas: int) -> list[str]:
        """The names of those that nobody else created meanwhile."""
        news = [
            NewTopic(
                topic.name,
                num_partitions=topic.partitions,
                replication_factor=replicas,
                config=topic_config(topic, replicas),
            )
            for topic in topics
        ]
        made = []
        for name, future in self._admin.create_topics(news, operation_timeout=self._timeout).items():
            try:
                self._settle({name: future})
                made.append(name)
            except KafkaUnavailable as error:
                why = error.__cause__
                if not isinstance(why, KafkaException) or why.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
        return made

    def _settle(self, futures: Mapping[Any, Any]) -> dict[Any, Any]:
        return settle(futures, self._timeout + 5)


def missing_topics(wanted: Iterable[Topic], standing: Mapping[str, Standing], replicas: int) -> list[Topic]:
    """Topics that are not there; pure.

    Args:
        wanted: as `topics.yaml` says.
        standing: what the cluster has, by name.
        replicas: how many of each partition there should be.

    Raises:
        DeploymentConflict: a topic has another partition count: keys would move between partitions, so this is
            never changed under way. Or fewer replicas: brokers would have to copy all of it.
    """
    missing = []
    for topic in wanted:
        found = standing.get(topic.name)
        if found is None:
            missing.append(topic)
        elif found.partitions != topic.partitions:
            raise DeploymentConflict(
                f"topic {topic.name} has {found.partitions} partitions, topics.yaml says {topic.partitions}; "
                f"changing it would move robots between partitions. Restore the file, or deploy to a new cluster."
            )
        elif found.replicas < replicas:
            raise DeploymentConflict(
                f"topic {topic.name} has {found.replicas} replicas of a partition, and {replicas} are asked for: "
                f"add them with kafka-reassign-partitions.sh, or set SOP_KAFKA__REPLICATION_FACTOR="
                f"{found.replicas} if so few brokers may hold it"
            )
    return missing


def _alteration(topic: Topic, replicas: int) -> ConfigResource:
    return ConfigResource(
        ConfigResource.Type.TOPIC,
        topic.name,
        incremental_configs=[
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in topic_config(topic, replicas).items()
        ],
    )


def topic_config(topic: Topic, replication_factor: int) -> dict[str, str]:
    """Kafka's topic settings for an entry of `topics.yaml`."""
    retention = -1 if topic.retention_days is None else topic.retention_days * DAY_MS
    config = {
        "cleanup.policy": topic.cleanup,
        "retention.ms": str(retention),
        "message.timestamp.type": topic.timestamp,
        "max.message.bytes": str(topic.max_record_bytes),
    }
    if replication_factor >= 3:
        # Else "acknowledged by all" may mean by the leader alone, and dies with it.
        config["min.insync.replicas"] = "2"
    return config
