"""Waiting for the servers that a process needs, by name and with a bound."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from infra.backoff import Backoff
from infra.clickhouse.client import connect
from infra.clock import Clock, SystemClock
from infra.errors import Unavailable
from infra.kafka.admin import ClusterAdmin
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings

_log = structlog.get_logger(__name__)

PROBE_SECONDS = 5.0
"""Bound of one question; ordinary work may wait longer, but a start should not."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A cheap question to a server.

    address: where it is expected. setting: the variable that says so.
    ask: raises Unavailable while the server is down.
    """

    address: str
    setting: str
    ask: Callable[[], object]

    @property
    def advice(self) -> str:
        """What to do when it does not answer."""
        return f"start the servers (`sop stack up`), or set {self.setting}"


def probes(settings: Settings, *, patient: bool = False) -> dict[str, Probe]:
    """A cheap question for each server, by the server's name.

    patient: each may take as long as any other request; else it is one of several, and is given up sooner.
    """
    bound = math.inf if patient else min(PROBE_SECONDS, settings.startup_timeout)
    kafka = settings.kafka.model_copy(update={"request_timeout": min(bound, settings.kafka.request_timeout)})
    registry = settings.registry.model_copy(update={"timeout": min(bound, settings.registry.timeout)})
    s3 = settings.s3.model_copy(update={"timeout": min(bound, settings.s3.timeout)})
    clickhouse = settings.clickhouse.model_copy(update={"timeout": min(bound, settings.clickhouse.timeout)})
    return {
        "Kafka": Probe(
            kafka.bootstrap_servers, "SOP_KAFKA__BOOTSTRAP_SERVERS", lambda: ClusterAdmin(kafka).ping()
        ),
        "schema registry": Probe(registry.url, "SOP_REGISTRY__URL", lambda: Registry(registry).ping()),
        "object store": Probe(s3.endpoint_url or "AWS", "SOP_S3__ENDPOINT_URL", lambda: ObjectStore(s3).ping()),
        "ClickHouse": Probe(
            f"{clickhouse.host}:{clickhouse.port}",
            "SOP_CLICKHOUSE__HOST and SOP_CLICKHOUSE__PORT",
            lambda: connect(clickhouse, database="default").close(),
        ),
    }


def wait_for(
    needed: Mapping[str, Probe],
    *,
    timeout: float,
    stop: threading.Event,
    clock: Clock | None = None,
) -> None:
    """Ask each server until it answers, with growing pauses.

    Args:
        needed: probes by the server's name.
        timeout: seconds for all of them together.
        stop: ends the wait early.
        clock: measures the bound.

    Raises:
        Unavailable: a server did not answer in time; the text names it, its address and what to do.
    """
    clock = clock or SystemClock()
    until = clock.monotonic() + timeout
    for name, probe in needed.items():
        backoff = Backoff(clock)
        while not stop.is_set():
            try:
                probe.ask()
                break
            except Unavailable as error:
                left = until - clock.monotonic()
                pause = backoff.failed()
                if pause > left:
                    raise Unavailable(
                        f"{name} did not answer within {timeout:g} s at {probe.address}: {error}; {probe.advice}"
                    ) from error
                _log.warning(
                    "waiting_for_server",
                    server=name,
                    address=probe.address,
                    error=str(error),
                    retry_in=pause,
                    gives_up_in=round(left, 1),
                )
                stop.wait(pause)
