from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.kafka.config import passes_by_itself


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
