"""Waiting for the servers that a process needs, by name and with a bound."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from infra.clickhouse.client import connect
from infra.clock import Clock, SystemClock
from infra.errors import Unavailable
from infra.kafka.admin import ClusterAdmin
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings

_log = structlog.get_logger(__name__)

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0
PROBE_SECONDS = 5.0
"""Bound of one question; ordinary work may wait longer, but a start should not."""


def probes(settings: Settings) -> dict[str, Callable[[], object]]:
    """A cheap question for each server, by the server's name."""
    bound = min(PROBE_SECONDS, settings.startup_timeout)
    kafka = settings.kafka.model_copy(update={"request_timeout": min(bound, settings.kafka.request_timeout)})
    registry = settings.registry.model_copy(update={"timeout": min(bound, settings.registry.timeout)})
    s3 = settings.s3.model_copy(update={"timeout": min(bound, settings.s3.timeout)})
    clickhouse = settings.clickhouse.model_copy(update={"timeout": min(bound, settings.clickhouse.timeout)})
    return {
        "Kafka": lambda: ClusterAdmin(kafka).ping(),
        "schema registry": lambda: Registry(registry).ping(),
        "object store": lambda: ObjectStore(s3).ping(),
        "ClickHouse": lambda: connect(clickhouse, database="default").close(),
    }


def wait_for(
    needed: Mapping[str, Callable[[], object]],
    *,
    timeout: float,
    stop: threading.Event,
    clock: Clock | None = None,
) -> None:
    """Ask each server until it answers, with growing pauses.

    Args:
        needed: probes by name; each raises Unavailable while its server is down.
        timeout: seconds for all of them together.
        stop: ends the wait early.
        clock: measures the bound.

    Raises:
        Unavailable: a server did not answer in time; the text names it.
    """
    clock = clock or SystemClock()
    until = clock.monotonic() + timeout
    for name, probe in needed.items():
        pause = FIRST_PAUSE
        while not stop.is_set():
            try:
                probe()
                break
            except Unavailable as error:
                if clock.monotonic() + pause > until:
                    raise Unavailable(f"{name} did not answer within {timeout:.0f} s: {error}") from error
                _log.warning("waiting_for_server", server=name, error=str(error), retry_in=pause)
                stop.wait(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
