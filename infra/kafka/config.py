"""Client properties that every producer, consumer and administrator shares."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from pydantic import SecretStr

from infra.errors import KafkaUnavailable, SettingInvalid
from infra.kafka.error_log import ErrorLog
from infra.settings import KafkaSettings

Partition = tuple[str, int]
"""Topic and partition number."""

PARTITIONER = "murmur2_random"
"""The Java client's partitioner, pinned so that a robot's key means one partition number for every client."""

MESSAGE_BYTES = 1_048_588 + 65_536
"""Largest record that is sent outside transactions: what robot topics take, and headers for a dead letter."""

_OPTIONAL = (
    "sasl.mechanism",
    "sasl.username",
    "sasl.password",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
)
"""Properties that are settings of the same name."""

_PASSING = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)

# librdkafka takes none below.
_SHORTEST_MS = 10

C = TypeVar("C")


def open_client(kind: Callable[[dict[str, Any]], C], properties: dict[str, Any]) -> C:
    """A producer, consumer or administrator of librdkafka with these properties.

    Raises:
        SettingInvalid: it cannot work with them, such as a certificate that is none; the text names the setting.
        KafkaUnavailable: this machine has no room for one.
    """
    try:
        return kind(properties)
    except KafkaException as error:
        text = error.args[0].str().strip()
        if error.args[0].code() != KafkaError._INVALID_ARG:
            raise KafkaUnavailable(text) from error
        text = re.sub(r"^Failed to create [a-z ]+: ", "", text)
        for name in _OPTIONAL:
            text = text.replace(name, f"SOP_KAFKA__{name.upper().replace('.', '_')}")
        raise SettingInvalid(f"Kafka's client refuses a setting: {text}") from error


def settle(futures: Mapping[Any, Any], timeout: float) -> dict[Any, Any]:
    """What an administrator's requests were answered, each within `timeout` seconds.

    Raises:
        KafkaUnavailable: one was refused, or not answered.
    """
    try:
        return {key: future.result(timeout=timeout) for key, future in futures.items()}
    except KafkaException as error:
        raise KafkaUnavailable(error.args[0].str()) from error
    except TimeoutError as error:
        raise KafkaUnavailable(f"no answer within {timeout:.0f} s") from error


def client_config(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """librdkafka properties for reaching the cluster; errors go to the log under the client's name."""
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": client_id,
        "security.protocol": kafka.security_protocol,
        "socket.timeout.ms": max(_SHORTEST_MS, int(kafka.request_timeout * 1000)),
        "reconnect.backoff.ms": 250,
        "reconnect.backoff.max.ms": 2000,
        "log_level": 2,  # what matters arrives in error_cb; the rest repeats itself at every attempt
        "error_cb": ErrorLog(client_id),
    }
    for name in _OPTIONAL:
        value = getattr(kafka, name.replace(".", "_"))
        if value is not None:
            config[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return config


def passes_by_itself(error: Exception) -> bool:
    """Whether a request may succeed if it is made again.

    A topic that is new, or a broker that just came, has no leader for a moment. `KafkaError.retriable()` does not
    tell: outside transactions it is always False.
    """
    return isinstance(error, KafkaException) and error.args[0].code() in _PASSING
