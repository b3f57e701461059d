from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from infra.errors import SettingInvalid
from infra.kafka import EventProducer, GroupConsumer, LogReader, TransactionalProducer
from infra.kafka.admin import ClusterAdmin
from infra.kafka.config import client_config, open_client, passes_by_itself
from infra.kafka.positions import Positions
from infra.settings import KafkaSettings


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.NOT_LEADER_FOR_PARTITION, True),
        (KafkaError.LEADER_NOT_AVAILABLE, True),
        (KafkaError._TRANSPORT, True),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
        (KafkaError.OFFSET_OUT_OF_RANGE, False),
    ],
)
def test_what_passes_by_itself_is_told_from_what_somebody_must_mend(code: int, expected: bool) -> None:
    assert passes_by_itself(KafkaException(KafkaError(code))) is expected


def test_another_error_does_not_pass_by_itself() -> None:
    assert not passes_by_itself(ValueError("no"))


@pytest.mark.parametrize("timeout", [1e-6, 0.009, 300.0])
def test_every_timeout_that_the_settings_take_a_client_takes(timeout: float) -> None:
    config = client_config(KafkaSettings(bootstrap_servers="127.0.0.1:1", request_timeout=timeout), "test")
    open_client(Producer, config)
    open_client(Consumer, {**config, "group.id": "test"}).close()
    EventProducer(KafkaSettings(bootstrap_servers="127.0.0.1:1"), "test", delivery_timeout=timeout)


@pytest.mark.parametrize(
    "make",
    [
        ClusterAdmin,
        Positions,
        lambda kafka: EventProducer(kafka, "test"),
        lambda kafka: GroupConsumer(kafka, "test", ["test"]),
        lambda kafka: LogReader(kafka, "test"),
        lambda kafka: TransactionalProducer(kafka, "test", timeout=1.0),
    ],
)
def test_what_a_client_cannot_work_with_is_an_error_of_ours_that_names_the_setting(
    make: Callable[[KafkaSettings], object], tmp_path: Path
) -> None:
    wrong = KafkaSettings(security_protocol="SSL", ssl_ca_location=tmp_path / "none")
    with pytest.raises(SettingInvalid, match="refuses a setting: SOP_KAFKA__SSL_CA_LOCATION failed"):
        make(wrong)
