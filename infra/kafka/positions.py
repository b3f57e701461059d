"""Positions in the log, asked of the cluster without joining a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from infra.errors import KafkaUnavailable
from infra.kafka.config import Partition, client_config, open_client, settle
from infra.settings import KafkaSettings


class Positions:
    """Offsets of groups and of times.

    Raises (all methods):
        KafkaUnavailable: no answer in time.
        SettingInvalid: making it; see `open_client`.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._timeout = kafka.request_timeout
        self._admin = open_client(AdminClient, client_config(kafka, "sop-positions"))

    def committed(self, group: str, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Next offsets that a group committed, once no transaction holds them open; only where it has some."""
        request = [ConsumerGroupTopicPartitions(group, [TopicPartition(*p) for p in partitions])]
        futures = self._admin.list_consumer_group_offsets(request, require_stable=True)
        found = self._settle(futures)[group].topic_partitions
        for position in found:
            if position.error is not None:
                raise KafkaUnavailable(f"{position.topic}[{position.partition}]: {position.error.str()}")
        return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}

    def since(self, partitions: Sequence[Partition], moment: datetime) -> dict[Partition, int]:
        """First offsets whose records were appended at `moment` (aware) or later; without those that have none."""
        spec = OffsetSpec.for_timestamp(int(moment.timestamp() * 1000))
        found = self._settle(self._admin.list_offsets({TopicPartition(*p): spec for p in partitions}))
        return {(p.topic, p.partition): at.offset for p, at in found.items() if at.offset >= 0}

    def _settle(self, futures: Mapping[Any, Any]) -> dict[Any, Any]:
        return settle(futures, self._timeout + 5)
