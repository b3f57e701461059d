"""Which cluster this is: an id that Kafka gives itself when it is first formatted, and never changes."""

from __future__ import annotations

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from infra.errors import KafkaUnavailable
from infra.kafka.config import client_config, open_client
from infra.settings import KafkaSettings


def cluster_id(kafka: KafkaSettings) -> str:
    """The id of the cluster that answers.

    Raises:
        KafkaUnavailable: none answers in time, or it does not say who it is.
        SettingInvalid: as `open_client`.
    """
    admin = open_client(AdminClient, client_config(kafka, "sop-identity"))
    try:
        found = admin.list_topics(timeout=kafka.request_timeout)
    except KafkaException as error:
        raise KafkaUnavailable(error.args[0].str()) from error
    if not found.cluster_id:
        raise KafkaUnavailable("the brokers do not say which cluster they are")
    return str(found.cluster_id)
