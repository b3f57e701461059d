"""Making a cluster agree with `schemas/topics.yaml`: topics, their settings, and first offsets of groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import stamina
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.cimpl import NewTopic

from infra.errors import DeploymentConflict, KafkaUnavailable
from infra.kafka.config import client_config
from infra.settings import KafkaSettings
from schemas.topics import Topic

DAY_MS = 86_400_000


class ClusterAdmin:
    """Idempotent changes to a cluster. Every method raises KafkaUnavailable when there is no answer in time."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._timeout = kafka.request_timeout
        self._admin = AdminClient(client_config(kafka, "sop-admin"))

    def ping(self) -> int:
        """Number of brokers that answer."""
        try:
            return len(self._admin.list_topics(timeout=self._timeout).brokers)
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error

    def partition_counts(self) -> dict[str, int]:
        """Partitions by topic, of all topics of the cluster."""
        try:
            topics = self._admin.list_topics(timeout=self._timeout).topics
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        return {name: len(topic.partitions) for name, topic in topics.items()}

    def ensure_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create what is missing and align settings of what exists; the names that were created.

        Raises:
            DeploymentConflict: a topic has another partition count. Keys would move between partitions,
                so this is never changed under way.
        """
        wanted = list(topics)
        existing = self.partition_counts()
        for topic in wanted:
            count = existing.get(topic.name, topic.partitions)
            if count != topic.partitions:
                raise DeploymentConflict(
                    f"topic {topic.name} has {count} partitions, topics.yaml says {topic.partitions}; changing it "
                    f"would move robots between partitions. Restore the file, or deploy to a new cluster."
                )
        missing = [topic for topic in wanted if topic.name not in existing]
        if missing:
            self._settle(
                self._admin.create_topics(
                    [
                        NewTopic(
                            topic.name,
                            num_partitions=topic.partitions,
                            replication_factor=self._kafka.replication_factor,
                            config=topic_config(topic, self._kafka.replication_factor),
                        )
                        for topic in missing
                    ],
                    operation_timeout=self._timeout,
                )
            )
        present = [topic for topic in wanted if topic.name in existing]
        if present:
            self._settle(self._admin.incremental_alter_configs([self._alteration(topic) for topic in present]))
        return [topic.name for topic in missing]

    def ensure_first_offsets(self, group: str, topics: Sequence[Topic]) -> int:
        """Commit the earliest offset wherever `group` has none yet; how many partitions that were.

        A group that is at work is left alone where it has offsets, and has them everywhere.
        """
        # On a fresh cluster partitions may lack their leader, and the group its coordinator, for a moment.
        partitions = [TopicPartition(topic.name, n) for topic in topics for n in range(topic.partitions)]
        for attempt in stamina.retry_context(on=KafkaUnavailable, attempts=None, timeout=self._timeout):
            with attempt:
                return self._set_first_offsets(group, partitions)
        raise AssertionError("unreachable: the last attempt raises")

    def _set_first_offsets(self, group: str, partitions: list[TopicPartition]) -> int:
        request = [ConsumerGroupTopicPartitions(group, partitions)]
        committed = self._settle(self._admin.list_consumer_group_offsets(request))[group]
        unset = [TopicPartition(p.topic, p.partition) for p in committed.topic_partitions if p.offset < 0]
        if not unset:
            return 0
        earliest = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        found = self._settle(self._admin.list_offsets(dict.fromkeys(unset, earliest)))
        first = [TopicPartition(p.topic, p.partition, low.offset) for p, low in found.items()]
        self._settle(self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, first)]))
        return len(first)

    def _alteration(self, topic: Topic) -> ConfigResource:
        wanted = topic_config(topic, self._kafka.replication_factor)
        return ConfigResource(
            ConfigResource.Type.TOPIC,
            topic.name,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in wanted.items()
            ],
        )

    def _settle(self, futures: Mapping[Any, Any]) -> dict[Any, Any]:
        try:
            return {key: future.result(timeout=self._timeout + 5) for key, future in futures.items()}
        except KafkaException as error:
            raise KafkaUnavailable(error.args[0].str()) from error
        except TimeoutError as error:
            raise KafkaUnavailable(f"no answer within {self._timeout + 5:.0f} s") from error


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
