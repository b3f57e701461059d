"""Client properties that every producer, consumer and administrator shares."""

from __future__ import annotations

from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from infra.settings import KafkaSettings

Partition = tuple[str, int]
"""Topic and partition number."""

PARTITIONER = "murmur2_random"
"""The Java client's partitioner, pinned so that a robot's key means one partition number for every client."""

MESSAGE_BYTES = 1_048_588 + 65_536
"""Largest record that is sent outside transactions: what robot topics take, and headers for a dead letter."""

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

_log = structlog.get_logger(__name__)


def client_config(kafka: KafkaSettings, client_id: str) -> dict[str, Any]:
    """librdkafka properties for reaching the cluster; errors go to the log under the client's name."""
    config: dict[str, Any] = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": client_id,
        "security.protocol": kafka.security_protocol,
        "socket.timeout.ms": int(kafka.request_timeout * 1000),
        "reconnect.backoff.ms": 250,
        "reconnect.backoff.max.ms": 2000,
        "log_level": 2,  # what matters arrives in error_cb; the rest repeats itself at every attempt
        "error_cb": lambda error: _report(client_id, error),
    }
    optional = {
        "sasl.mechanism": kafka.sasl_mechanism,
        "sasl.username": kafka.sasl_username,
        "sasl.password": kafka.sasl_password.get_secret_value() if kafka.sasl_password else None,
        "ssl.ca.location": kafka.ssl_ca_location,
        "ssl.certificate.location": kafka.ssl_certificate_location,
        "ssl.key.location": kafka.ssl_key_location,
    }
    config.update({name: str(value) for name, value in optional.items() if value is not None})
    return config


def passes_by_itself(error: Exception) -> bool:
    """Whether a request may succeed if it is made again.

    A topic that is new, or a broker that just came, has no leader for a moment. `KafkaError.retriable()` does not
    tell: outside transactions it is always False.
    """
    return isinstance(error, KafkaException) and error.args[0].code() in _PASSING


def _report(client_id: str, error: KafkaError) -> None:
    # Wrong credentials show up here and nowhere else: delivery callbacks only say "timed out".
    _log.warning("kafka_client_error", client=client_id, error=error.str(), fatal=error.fatal())
