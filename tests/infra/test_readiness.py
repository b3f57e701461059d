"""Waiting for servers: each until it answers, all together no longer than the bound, and no longer than a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from infra import readiness
from infra.backoff import FIRST_PAUSE, LONGEST_PAUSE
from infra.clock import ManualClock
from infra.errors import AccessRefused, KafkaUnavailable, Unavailable
from infra.readiness import Probe, probes, wait_for
from infra.settings import ClickHouseSettings, KafkaSettings, RegistrySettings, S3Settings, Settings


class Stop(threading.Event):
    """An event on which waiting takes no time but the clock's."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.pauses: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout or 0.0)
        self.clock.advance(timeout or 0.0)
        return self.is_set()


def asking(ask: Callable[[], object]) -> Probe:
    return Probe("nowhere:1", "SOP_NOWHERE", ask)


def down_for(times: int) -> Probe:
    """A probe that fails so often, and then answers."""
    left = iter(range(times))

    def probe() -> None:
        if next(left, None) is not None:
            raise KafkaUnavailable("connection refused")

    return asking(probe)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def test_a_server_that_comes_up_late_is_waited_for_with_growing_pauses(clock: ManualClock) -> None:
    stop = Stop(clock)
    wait_for({"Kafka": down_for(7)}, timeout=60.0, stop=stop, clock=clock)
    assert stop.pauses == [FIRST_PAUSE, 0.5, 1.0, 2.0, 4.0, LONGEST_PAUSE, LONGEST_PAUSE]


def test_a_server_that_stays_down_is_named_and_the_bound_is_never_passed(clock: ManualClock) -> None:
    stop = Stop(clock)
    with pytest.raises(
        Unavailable, match=r"ClickHouse did not answer within 10 s at nowhere:1: .*refused; .* SOP_NOWHERE"
    ):
        wait_for({"Kafka": down_for(2), "ClickHouse": down_for(10**9)}, timeout=10.0, stop=stop, clock=clock)
    assert 0 < clock.monotonic() <= 10.0


def test_the_bound_is_for_all_servers_together(clock: ManualClock) -> None:
    with pytest.raises(Unavailable, match="second did not answer"):
        wait_for({"first": down_for(5), "second": down_for(5)}, timeout=12.0, stop=Stop(clock), clock=clock)
    assert clock.monotonic() <= 12.0


def test_a_stop_ends_the_wait_without_an_error(clock: ManualClock) -> None:
    stop = Stop(clock)

    def probe() -> None:
        stop.set()
        raise KafkaUnavailable("connection refused")

    servers = {"Kafka": asking(probe), "never asked": asking(lambda: pytest.fail("asked"))}
    wait_for(servers, timeout=60.0, stop=stop, clock=clock)
    assert len(stop.pauses) == 1


def test_while_it_waits_it_logs_where_the_server_should_be_and_when_it_gives_up(clock: ManualClock) -> None:
    with capture_logs() as logs:
        wait_for({"Kafka": down_for(2)}, timeout=60.0, stop=Stop(clock), clock=clock)
    assert [(line["server"], line["address"], line["gives_up_in"]) for line in logs] == [
        ("Kafka", "nowhere:1", 60.0),
        ("Kafka", "nowhere:1", 59.8),
    ]


def test_what_waiting_cannot_mend_is_raised_at_once(clock: ManualClock) -> None:
    def refused() -> None:
        raise AccessRefused("wrong password")

    stop = Stop(clock)
    with pytest.raises(AccessRefused):
        wait_for({"ClickHouse": asking(refused)}, timeout=60.0, stop=stop, clock=clock)
    assert stop.pauses == []


def test_a_question_never_takes_longer_than_the_whole_wait_may(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[float] = []

    class Asked:
        def __init__(self, section: object) -> None:
            bounds.append(getattr(section, "timeout", 0.0) or getattr(section, "request_timeout", 0.0))

        def ping(self) -> None: ...

        def close(self) -> None: ...

    for name in ("ClusterAdmin", "Registry", "ObjectStore"):
        monkeypatch.setattr(readiness, name, Asked)
    monkeypatch.setattr(readiness, "connect", lambda section, **_: Asked(section))
    for settings in (Settings(startup_timeout=1.5), Settings(startup_timeout=600)):
        for probe in probes(settings).values():
            probe.ask()
    assert bounds == [1.5] * 4 + [readiness.PROBE_SECONDS] * 4
    bounds.clear()
    for probe in probes(Settings(startup_timeout=1.5), patient=True).values():
        probe.ask()
    whole = Settings()
    assert bounds == [
        whole.kafka.request_timeout,
        whole.registry.timeout,
        whole.s3.timeout,
        whole.clickhouse.timeout,
    ]


def test_every_probe_names_a_setting_and_the_address_that_it_holds() -> None:
    settings = Settings(
        kafka=KafkaSettings(bootstrap_servers="k:1"),
        s3=S3Settings(endpoint_url="http://s:2"),
        clickhouse=ClickHouseSettings(host="c", port=3),
        registry=RegistrySettings(url="http://r:4"),
    )
    found = probes(settings)
    assert [probe.address for probe in found.values()] == ["k:1", "http://r:4", "http://s:2", "c:3"]
    for probe in found.values():
        for name in probe.setting.split(" and "):
            section, field = name.removeprefix("SOP_").lower().split("__")
            assert hasattr(getattr(settings, section), field)
            assert name in probe.advice
