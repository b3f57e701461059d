from __future__ import annotations

from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from infra.clock import ManualClock
from infra.kafka.error_log import ErrorLog


def test_an_error_that_goes_on_is_told_at_once_and_then_every_half_minute_with_its_number() -> None:
    clock = ManualClock()
    log = ErrorLog("robot", clock)
    down, away = KafkaError(KafkaError._TRANSPORT, "refused"), KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1")
    with capture_logs() as lines:
        for _ in range(100):
            log(down)
            log(away)
            clock.advance(0.5)
    told = [(line["error"], line["not_shown"]) for line in lines]
    assert told == [("refused", 0), ("1/1", 0), ("refused", 59), ("1/1", 59)]


def test_what_ends_a_client_is_never_held_back() -> None:
    log = ErrorLog("robot", ManualClock())
    with capture_logs() as lines:
        for _ in range(2):
            log(KafkaError(KafkaError._FENCED, "another one", fatal=True))
    assert [line["fatal"] for line in lines] == [True, True]
