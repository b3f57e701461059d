"""Positions in the log, asked of the cluster without joining a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import stamina
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from infra.errors import KafkaUnavailable
from infra.kafka.config import Partition, client_config, open_client, settle
from infra.settings import KafkaSettings

# Seconds for one question; many may fit into the time that a caller has.
_PATIENCE = 3.0
_REFUSED = (
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)


def ask_committed(consumer: Consumer, partitions: Sequence[Partition], timeout: float) -> list[TopicPartition]:
    """What the consumer's group committed, an offset below 0 where it has nothing; waits about so many seconds.

    It is asked again and again meanwhile: librdkafka gives up at once when the group's coordinator has moved, and
    where it was only just found it may wait for an event that was before.

    Raises:
        KafkaUnavailable: no answer in time, or we may not ask.
    """
    for attempt in stamina.retry_context(on=_may_pass, attempts=None, timeout=timeout, wait_max=0.5):
        with attempt:
            return _committed(consumer, partitions, min(timeout, _PATIENCE))
    raise AssertionError("unreachable: the last attempt raises")


def _may_pass(error: Exception) -> bool:
    cause = error.__cause__
    refused = isinstance(cause, KafkaException) and cause.args[0].code() in _REFUSED
    return isinstance(error, KafkaUnavailable) and not refused


def _committed(consumer: Consumer, partitions: Sequence[Partition], timeout: float) -> list[TopicPartition]:
    try:
        found: list[TopicPartition] = consumer.committed([TopicPartition(*p) for p in partitions], timeout)
    except KafkaException as error:
        raise KafkaUnavailable(error.args[0].str()) from error
    for position in found:
        if position.error is not None:
            where = f"{position.topic}[{position.partition}]"
            raise KafkaUnavailable(f"{where}: {position.error.str()}") from KafkaException(position.error)
    return found


def committed_offsets(kafka: KafkaSettings, group: str, partitions: Sequence[Partition]) -> dict[Partition, int]:
    """Next offsets that a group committed, once no transaction holds them open; only where it has some.

    Asked by a consumer that never joins. An administrator's request for the same ends the process with a
    segmentation fault when the group's coordinator has just moved (librdkafka's issue 5040).

    Raises:
        KafkaUnavailable: no answer in time.
        SettingInvalid: see `open_client`.
    """
    properties = {"group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False}
    consumer = open_client(Consumer, client_config(kafka, "sop-positions") | properties)
    try:
        found = ask_committed(consumer, partitions, kafka.request_timeout)
    finally:
        consumer.close()
    return {(p.topic, p.partition): p.offset for p in found if p.offset >= 0}


class Positions:
    """Offsets of times.

    Raises (all methods):
        KafkaUnavailable: no answer in time.
        SettingInvalid: making it; see `open_client`.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._timeout = kafka.request_timeout
        self._admin = open_client(AdminClient, client_config(kafka, "sop-positions"))

    def since(self, partitions: Sequence[Partition], moment: datetime) -> dict[Partition, int]:
        """First offsets whose records were appended at `moment` (aware) or later; without those that have none."""
        spec = OffsetSpec.for_timestamp(int(moment.timestamp() * 1000))
        found = self._settle(self._admin.list_offsets({TopicPartition(*p): spec for p in partitions}))
        return {(p.topic, p.partition): at.offset for p, at in found.items() if at.offset >= 0}

    def _settle(self, futures: Mapping[Any, Any]) -> dict[Any, Any]:
        return settle(futures, self._timeout + 5)
