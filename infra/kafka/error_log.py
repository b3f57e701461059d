"""What a Kafka client complains of, in the log, without drowning it."""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaError

from infra.clock import Clock, SystemClock

_log = structlog.get_logger(__name__)

_QUIET_SECONDS = 30.0


class ErrorLog:
    """One client's errors: each kind at once, and while it goes on every half minute, with how often it came.

    A client that cannot connect tries again several times a second, and says so each time. Wrong credentials show
    up here and nowhere else: delivery callbacks only say "timed out".
    """

    def __init__(self, client_id: str, clock: Clock | None = None) -> None:
        self._client_id = client_id
        self._clock = clock or SystemClock()
        self._told: dict[int, float] = {}
        self._untold: dict[int, int] = {}

    def __call__(self, error: KafkaError) -> None:
        """librdkafka's `error_cb`."""
        code, now = error.code(), self._clock.monotonic()
        if not error.fatal() and now - self._told.get(code, -_QUIET_SECONDS) < _QUIET_SECONDS:
            self._untold[code] = self._untold.get(code, 0) + 1
            return
        self._told[code] = now
        _log.warning(
            "kafka_client_error",
            client=self._client_id,
            error=error.str(),
            fatal=error.fatal(),
            not_shown=self._untold.pop(code, 0),
        )
